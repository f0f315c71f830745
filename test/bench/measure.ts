/**
 * Runs programs side by side and measures them: wall time of the whole process, peak memory of the process itself.
 *
 * Machines are noisy, so rounds are interleaved (a b c, a b c, …) and medians are compared as ratios.
 */
import { readFileSync } from "node:fs";

export interface Contender {
  readonly name: string;
  /** Makes the next run ready; not timed. */
  readonly prepare?: (round: number) => Promise<void>;
  readonly argv: (round: number) => readonly [string, ...string[]];
  readonly cwd: string;
  readonly env: (round: number) => Readonly<Record<string, string>>;
  /** Looks at what it wrote to stdout, and throws if it did not do its work; not timed. */
  readonly check?: (stdout: string) => void;
  /** Takes part in the first rounds only. @default all */
  readonly rounds?: number;
}

export interface Measured {
  readonly name: string;
  /** Median of the whole process. */
  readonly ms: number;
  /** Median of the processor time, in milliseconds: of the process and the children that it waited for. */
  readonly cpu: number;
  /** Peak resident memory of the process itself, without its children. */
  readonly megabytes: number;
}

/** What was measured in one situation. */
export interface Row {
  readonly title: string;
  /** The highest ratio that is wanted of ours. */
  readonly goal?: number;
  readonly measured: readonly Measured[];
}

/**
 * Runs each contender once per round, in turns; says on stderr what each run took.
 *
 * @throws {Error} If one of them fails: what it wrote to stderr is in the message.
 */
export async function compare(contenders: readonly Contender[], rounds: number): Promise<readonly Measured[]> {
  const times = contenders.map((): number[] => []);
  const works = contenders.map((): number[] => []);
  const peaks = contenders.map(() => 0);
  for (let round = 0; round < rounds; round++) {
    for (const [i, contender] of contenders.entries()) {
      if (round >= (contender.rounds ?? rounds)) continue;
      await contender.prepare?.(round);
      const { cpu, ms, megabytes, stdout } = await runOnce(contender, round);
      contender.check?.(stdout);
      console.error(`  ${contender.name}: ${formatTime(ms)}, ${megabytes.toFixed(0)} MB`);
      times[i]?.push(ms);
      works[i]?.push(cpu);
      peaks[i] = Math.max(peaks[i] ?? 0, megabytes);
    }
  }
  return contenders.map(({ name }, i) => ({
    name,
    ms: median(times[i] ?? []),
    cpu: median(works[i] ?? []),
    megabytes: peaks[i] ?? 0,
  }));
}

interface Run {
  readonly ms: number;
  readonly cpu: number;
  readonly megabytes: number;
  readonly stdout: string;
}

async function runOnce(contender: Contender, round: number): Promise<Run> {
  const start = Bun.nanoseconds();
  const child = Bun.spawn([...contender.argv(round)], {
    cwd: contender.cwd,
    env: contender.env(round),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  let peak = 0;
  const look = (): void => {
    try {
      const status = readFileSync(`/proc/${child.pid}/status`, "utf8");
      peak = Math.max(peak, Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0));
    } catch {
      // It has ended, or this is no Linux.
    }
  };
  look();
  const timer = setInterval(look, 10);
  const [code, stdout, stderr] = await Promise.all([child.exited, child.stdout.text(), child.stderr.text()]);
  clearInterval(timer);
  const ms = (Bun.nanoseconds() - start) / 1e6;
  if (code !== 0) throw new Error(`${contender.name}: exit code ${code}\n${stderr}`);
  const cpu = Number(child.resourceUsage()?.cpuTime.total ?? Number.NaN) / 1000;
  return { ms, cpu, megabytes: peak / 1024, stdout };
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

/** A Markdown table; the ratio is to the contender named `unit`. */
export function formatTable(title: string, measured: readonly Measured[], unit: string): string {
  const one = measured.find(({ name }) => name === unit)?.ms ?? Number.NaN;
  return [
    `### ${title}`,
    "",
    `| | time | ratio to ${unit} | peak memory of the process itself |`,
    "|---|---|---|---|",
    ...measured.map(({ name, ms, megabytes }) => {
      return `| ${name} | ${formatTime(ms)} | ${(ms / one).toFixed(2)} | ${megabytes.toFixed(0)} MB |`;
    }),
    "",
  ].join("\n");
}

export interface FormatRowsOptions {
  readonly rows: readonly Row[];
  /** The contender that ratios are to. */
  readonly unit: string;
  /** The contender that has goals. */
  readonly ours: string;
}

/** A Markdown table with a line per row: of `unit` the time, of the others ratio, time and peak memory. */
export function formatRows(title: string, { rows, unit, ours }: FormatRowsOptions): string {
  const names = rows[0]?.measured.map(({ name }) => name).filter((name) => name !== unit) ?? [];
  const head = ["", unit, ...names.map((name) => (name === ours ? `${name} (goal)` : name))];
  const lines = rows.map(({ title: row, goal, measured }) => {
    const one = measured.find(({ name }) => name === unit)?.ms ?? Number.NaN;
    const cells = measured
      .filter(({ name }) => name !== unit)
      .map(({ name, ms, megabytes }) => {
        const ratio = (ms / one).toFixed(2);
        const judged = name === ours ? `**${ratio}**${goal === undefined ? "" : ` (${goal.toFixed(2)})`}` : ratio;
        return `${judged}: ${formatTime(ms)}, ${megabytes.toFixed(0)} MB`;
      });
    return [row, formatTime(one), ...cells];
  });
  const table = [head, head.map(() => "---"), ...lines].map((cells) => `| ${cells.join(" | ")} |`);
  return [`### ${title}`, "", ...table, ""].join("\n");
}

export function formatTime(ms: number): string {
  return ms < 1000 ? `${ms.toFixed(1)} ms` : `${(ms / 1000).toFixed(2)} s`;
}
