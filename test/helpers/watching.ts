/**
 * A running `ko … --watch`: waits for its rounds, ends it. No wait depends on time: each one is for output of ko.
 */
import { type Result, type Running, waitUntil } from "./programs.ts";
import type { Bench, KoOptions } from "./workbench.ts";

export interface Watching extends AsyncDisposable {
  readonly running: Running;
  /** Waits for the end of the next round, and returns all that was said on stderr since the last call. */
  round(): Promise<string>;
  /** Waits until stderr since the last call matches, and returns it up to there. */
  said(what: RegExp): Promise<string>;
  /** What was written to stdout since the last call. */
  printed(): string;
  /** Sends a signal to ko, or to its whole group as a terminal does, and waits for the end. */
  end(signal?: NodeJS.Signals, options?: { readonly group: boolean }): Promise<Result>;
}

/** The last line of a round's block. */
const ROUND = /^ {2}(?:printed|applied|created|nothing new|failed).*\d\.\d\d s.*\n/m;

/** Starts ko in a bench. The first round is not waited for. */
export function startWatching(bench: Bench, args: readonly string[], options: KoOptions = {}): Watching {
  const running = bench.start(args, options);
  let [errAt, outAt] = [0, 0];
  let isEnded = false;
  const said = async (what: RegExp): Promise<string> => {
    const rest = (): string => running.stderr().slice(errAt);
    await waitUntil(() => what.test(rest()), running);
    const match = what.exec(rest());
    const end = (match?.index ?? 0) + (match?.[0].length ?? 0);
    const text = rest().slice(0, end);
    errAt += end;
    return text;
  };
  const end: Watching["end"] = async (signal = "SIGINT", { group } = { group: false }) => {
    isEnded = true;
    process.kill(group ? -running.pid : running.pid, signal);
    return running.result;
  };
  return {
    running,
    said,
    round: () => said(ROUND),
    printed: () => {
      const text = running.stdout().slice(outAt);
      outAt += text.length;
      return text;
    },
    end,
    [Symbol.asyncDispose]: async () => {
      if (!isEnded) await end("SIGKILL", { group: true });
    },
  };
}

/** The first line of a round's block, without the time of day: what it was about. */
export function causeOf(block: string): string {
  return /^\d\d:\d\d:\d\d (.*)$/m.exec(block)?.[1] ?? "";
}

/** The last line of a round's block, without times: what came of it. */
export function outcomeOf(block: string): string {
  return /^ {2}([^,\n]*), \d+\.\d\d s/m.exec(block)?.[1] ?? "";
}
