/**
 * The process that feeds the parsers. The process that started it sees from a file which input is being read, and ends it
 * if that takes too long or too much memory.
 *
 * usage: bun fuzz-worker.ts JSON of {@link Work}
 */
import { openSync, readFileSync, writeSync } from "node:fs";
import { messageOf } from "../../lib/errors.ts";
import { findTarget, minimize, openInputs } from "./fuzz-inputs.ts";
import type { Check, Target } from "./fuzz-target.ts";

export interface Work {
  readonly seed: number;
  /** Names of targets. */
  readonly targets: readonly string[];
  /** The first number of each target. */
  readonly starts: readonly number[];
  readonly seconds: number;
  /** The file for the index of the target that is fed, and the number of each target's input. */
  readonly progress: string;
  /** Feeds this file instead, once. */
  readonly replay?: string;
}

/** A line of the worker's stdout. */
export interface Finding {
  readonly target: string;
  readonly number: number;
  readonly message: string;
  /** Minimized, in base64. */
  readonly input: string;
}

/** Milliseconds that one target is fed before the next. */
const SLICE_MS = 200;

/** The findings of one kind are the same fault; of each kind one is told. */
const told = new Set<string>();

async function feed(work: Work): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const counts = Uint32Array.from([0, ...work.starts]);
  const file = openSync(work.progress, "r+");
  const open: { target: Target; check: Check; inputOf: (number: number) => Uint8Array }[] = [];
  for (const name of work.targets) {
    const target = findTarget(name);
    if (target === undefined) throw new Error(`there is no target ${name}`);
    open.push({ target, check: await target.open(stack), inputOf: openInputs(target, work.seed) });
  }
  process.on("unhandledRejection", (reason) => {
    const at = (counts[0] ?? 1) - 1;
    const number = counts[at + 1] ?? 0;
    const input = open[at]?.inputOf(number) ?? new Uint8Array();
    tell({ target: work.targets[at] ?? "", number, message: `unhandled: ${messageOf(reason)}`, input });
  });
  const end = performance.now() + work.seconds * 1000;
  while (performance.now() < end || work.replay !== undefined) {
    for (const [i, { target, check, inputOf }] of open.entries()) {
      counts[0] = i + 1;
      const until = Math.min(end, performance.now() + SLICE_MS);
      do {
        const number = counts[i + 1] ?? 0;
        writeSync(file, counts, 0, counts.byteLength, 0);
        const input = work.replay === undefined ? inputOf(number) : new Uint8Array(readFileSync(work.replay));
        const message = await failureOf(check, input);
        if (message !== undefined) await report({ target, check, number, message, input });
        if (work.replay !== undefined) return await Bun.sleep(0);
        counts[i + 1] = number + 1;
      } while (performance.now() < until);
    }
    // Lets timers and finalizers run.
    await Bun.sleep(0);
  }
  counts[0] = 0;
  writeSync(file, counts, 0, counts.byteLength, 0);
}

/** The message of the property that does not hold; undefined if all do. */
async function failureOf(check: Check, input: Uint8Array): Promise<string | undefined> {
  try {
    await check(input);
    return undefined;
  } catch (error) {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  }
}

interface Report {
  readonly target: Target;
  readonly check: Check;
  readonly number: number;
  readonly message: string;
  readonly input: Uint8Array;
}

async function report({ target, check, number, message, input }: Report): Promise<void> {
  const kind = kindOf(message);
  if (told.has(`${target.name} ${kind}`)) return;
  told.add(`${target.name} ${kind}`);
  const fails = async (candidate: Uint8Array): Promise<boolean> => {
    const found = await failureOf(check, candidate);
    return found !== undefined && kindOf(found) === kind;
  };
  const smallest = await minimize(input, { fails, tries: 400 });
  tell({ target: target.name, number, message: (await failureOf(check, smallest)) ?? message, input: smallest });
}

/** The message without what differs from input to input. */
function kindOf(message: string): string {
  return message
    .slice(0, 60)
    .replace(/["'{[].*/s, "")
    .replace(/\d+/g, "N");
}

function tell({ input, ...finding }: Omit<Finding, "input"> & { readonly input: Uint8Array }): void {
  const line: Finding = { ...finding, input: Buffer.from(input).toString("base64") };
  writeSync(1, `${JSON.stringify(line)}\n`);
}

if (import.meta.main) {
  const work: Work = JSON.parse(process.argv[2] ?? "{}");
  await feed(work);
}
