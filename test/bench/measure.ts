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
}

export interface Measured {
  readonly name: string;
  /** Median of the whole process. */
  readonly ms: number;
  /** Peak resident memory of the process itself, without its children. */
  readonly megabytes: number;
}

/**
 * @throws {Error} If one of them fails: what it wrote to stderr is in the message.
 */
export async function compare(contenders: readonly Contender[], rounds: number): Promise<readonly Measured[]> {
  const times = contenders.map((): number[] => []);
  const peaks = contenders.map(() => 0);
  for (let round = 0; round < rounds; round++) {
    for (const [i, contender] of contenders.entries()) {
      await contender.prepare?.(round);
      const { ms, megabytes } = await runOnce(contender, round);
      times[i]?.push(ms);
      peaks[i] = Math.max(peaks[i] ?? 0, megabytes);
    }
  }
  return contenders.map(({ name }, i) => ({ name, ms: median(times[i] ?? []), megabytes: peaks[i] ?? 0 }));
}

async function runOnce(contender: Contender, round: number): Promise<{ ms: number; megabytes: number }> {
  const start = Bun.nanoseconds();
  const child = Bun.spawn([...contender.argv(round)], {
    cwd: contender.cwd,
    env: contender.env(round),
    stdin: "ignore",
    stdout: "ignore",
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
  const [code, stderr] = await Promise.all([child.exited, new Response(child.stderr).text()]);
  clearInterval(timer);
  const ms = (Bun.nanoseconds() - start) / 1e6;
  if (code !== 0) throw new Error(`${contender.name}: exit code ${code}\n${stderr}`);
  return { ms, megabytes: peak / 1024 };
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
      const time = ms < 1000 ? `${ms.toFixed(1)} ms` : `${(ms / 1000).toFixed(2)} s`;
      return `| ${name} | ${time} | ${(ms / one).toFixed(2)} | ${megabytes.toFixed(0)} MB |`;
    }),
    "",
  ].join("\n");
}
