/**
 * `npm run fuzz`: feeds the parsers of foreign bytes with random inputs for a time. An input that breaks a property, takes
 * more than two seconds or too much memory is made small and put into the corpus, which `npm test` tries.
 *
 * usage: bun test/fuzz/fuzz.ts [--time=20m] [--seed=N] [--memory=MB] [--replay=FILE] [TARGET]...
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { addToCorpus, findTarget, minimize, openInputs, TARGETS } from "./fuzz-inputs.ts";
import type { Finding, Work } from "./fuzz-worker.ts";

/** Milliseconds of processor time that one input may take, and of all time, on a busy machine. */
const MAX_CPU_MS = 4000;
const MAX_WALL_MS = 60_000;

/** Milliseconds between two looks at the worker. */
const LOOK_MS = 100;

/** How a worker ended: by itself, or ended because of one input. */
interface Ending {
  readonly counts: readonly number[];
  readonly findings: readonly Finding[];
  /** The fault of the input that was being read. */
  readonly fault?: string;
  /** The index of its target. */
  readonly at?: number;
}

function parseTime(text: string): number {
  const found = /^(\d+(?:\.\d+)?)(s|m|h)?$/.exec(text);
  if (found === null) throw new Error(`Cannot use --time="${text}": want a number and s, m or h, such as 20m`);
  return Number(found[1]) * { s: 1, m: 60, h: 3600 }[found[2] === "m" || found[2] === "h" ? found[2] : "s"];
}

/** Runs a worker to its end. @param maxMemory bytes: the collector of a worker is lazy */
async function runWorker(work: Omit<Work, "progress">, maxMemory: number): Promise<Ending> {
  const progress = join(tmpdir(), `ko-fuzz-${process.pid}.progress`);
  writeFileSync(progress, new Uint8Array(4 * (work.targets.length + 1)));
  const argument = JSON.stringify({ ...work, progress });
  const child = Bun.spawn([process.execPath, "--no-env-file", join(import.meta.dir, "fuzz-worker.ts"), argument], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const stop = (): void => child.kill();
  process.once("SIGINT", stop);
  const stdout = child.stdout.text();
  const stderr = child.stderr.text();
  const fault = await watch(child, { progress, maxMemory });
  const [text, said] = await Promise.all([stdout, stderr]);
  process.off("SIGINT", stop);
  const [current = 0, ...counts] = readProgress(progress);
  rmSync(progress, { force: true });
  const findings = text.split("\n").flatMap((line): readonly Finding[] => (line === "" ? [] : [JSON.parse(line)]));
  if (current === 0 || (work.replay !== undefined && fault === undefined && child.exitCode === 0)) {
    return { counts, findings };
  }
  return {
    counts,
    findings,
    at: current - 1,
    fault: fault ?? `the process ended with ${child.signalCode ?? child.exitCode}: ${said.slice(-400)}`,
  };
}

/** Waits for the end of a worker, and ends it if one input takes too much. */
async function watch(
  child: Bun.Subprocess,
  { progress, maxMemory }: { readonly progress: string; readonly maxMemory: number },
): Promise<string | undefined> {
  let before = "";
  let since = { cpu: 0, wall: 0 };
  while (child.exitCode === null && child.signalCode === null) {
    await Promise.race([child.exited, Bun.sleep(LOOK_MS)]);
    const now = { cpu: readCpu(child.pid), wall: performance.now() };
    const at = readProgress(progress).join(" ");
    if (at !== before) {
      [before, since] = [at, now];
      continue;
    }
    const isFed = !at.startsWith("0 ") && at !== "0";
    const isSlow = now.cpu - since.cpu > MAX_CPU_MS || now.wall - since.wall > MAX_WALL_MS;
    const memory = readMemory(child.pid);
    if (!isFed || (!isSlow && memory < maxMemory)) continue;
    child.kill("SIGKILL");
    await child.exited;
    return memory >= maxMemory ? `memory: ${Math.round(memory / 1e6)} MB` : `slow: more than ${MAX_CPU_MS} ms`;
  }
  return undefined;
}

function readProgress(path: string): readonly number[] {
  const bytes = readFileSync(path);
  return Array.from({ length: bytes.byteLength / 4 }, (_, i) => bytes.readUInt32LE(4 * i));
}

/** Milliseconds of processor time of a process. */
function readCpu(pid: number): number {
  const stat = readOrNothing(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) * 10;
}

/** Bytes of memory of a process. */
function readMemory(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readOrNothing(`/proc/${pid}/status`))?.[1] ?? 0) * 1024;
}

function readOrNothing(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

interface Fault {
  readonly target: string;
  readonly message: string;
  readonly input: Uint8Array;
}

/** Makes an input smaller that ended a worker, with a worker for each try. */
async function minimizeFault({ target, input }: Fault, maxMemory: number): Promise<Uint8Array> {
  const replay = join(tmpdir(), `ko-fuzz-${process.pid}.input`);
  const fails = async (candidate: Uint8Array): Promise<boolean> => {
    writeFileSync(replay, candidate);
    const work = { seed: 0, targets: [target], starts: [0], seconds: 1, replay };
    return (await runWorker(work, maxMemory)).fault !== undefined;
  };
  const smallest = await minimize(input, { fails, tries: 40 });
  rmSync(replay, { force: true });
  return smallest;
}

function tell({ target, message, input }: Fault): void {
  console.log(`FOUND ${target}: ${message}\n  ${addToCorpus(target, input)} (${input.byteLength} bytes)`);
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    options: {
      time: { type: "string", default: "1m" },
      seed: { type: "string" },
      memory: { type: "string", default: "600" },
      replay: { type: "string" },
    },
    allowPositionals: true,
  });
  const known = TARGETS.map(({ name }) => name);
  const unknown = positionals.find((name) => findTarget(name) === undefined);
  if (unknown !== undefined) throw new Error(`Cannot fuzz "${unknown}": the targets are ${known.join(", ")}`);
  const targets = positionals.length === 0 ? known : positionals;
  const seed = values.seed === undefined ? Date.now() % 1e9 : Number(values.seed);
  if (!Number.isSafeInteger(seed)) throw new Error(`Cannot use --seed="${values.seed}": it is not an integer`);
  const seconds = parseTime(values.time);
  const maxMemory = Number(values.memory) * 1e6;
  if (!(maxMemory > 0)) throw new Error(`Cannot use --memory="${values.memory}": want megabytes`);
  if (values.replay !== undefined) {
    const work = { seed, targets, starts: targets.map(() => 0), seconds, replay: values.replay };
    const { findings, fault } = await runWorker(work, maxMemory);
    for (const { target, message } of findings) console.log(`${target}: ${message}`);
    if (fault !== undefined) console.log(fault);
    return findings.length > 0 || fault !== undefined ? 1 : 0;
  }
  console.log(`seed ${seed}, ${seconds} s, ${targets.length} targets: ${targets.join(" ")}`);
  let starts: readonly number[] = targets.map(() => 0);
  let count = 0;
  let isEnded = false;
  process.once("SIGINT", () => (isEnded = true));
  const started = performance.now();
  const left = (): number => seconds - (performance.now() - started) / 1000;
  while (left() > 0 && !isEnded) {
    const { counts, findings, at, fault } = await runWorker({ seed, targets, starts, seconds: left() }, maxMemory);
    starts = counts.map((number, i) => (i === at ? number + 1 : number));
    for (const { target, message, input } of findings) tell({ target, message, input: Buffer.from(input, "base64") });
    count += findings.length;
    const name = at === undefined ? undefined : targets[at];
    const target = name === undefined ? undefined : findTarget(name);
    if (fault === undefined || at === undefined || target === undefined || isEnded) continue;
    const found = { target: target.name, message: fault, input: openInputs(target, seed)(counts[at] ?? 0) };
    tell({ ...found, input: await minimizeFault(found, maxMemory) });
    count++;
  }
  for (const [i, name] of targets.entries()) console.log(`${name}: ${starts[i]} inputs`);
  const total = starts.reduce((sum, each) => sum + each, 0);
  console.log(`${count} found in ${total} inputs, ${Math.round((performance.now() - started) / 1000)} s, seed ${seed}`);
  return count === 0 ? 0 : 1;
}

if (import.meta.main) process.exitCode = await main();
