/**
 * The checks of `ko doctor`: all run at once, each with a time limit of its own and as many findings as it has.
 *
 * A check only reads. Programs that it starts are killed at its end, as they may be hanging.
 */
import { systemClock, until } from "./async.ts";
import { KoError, KoErrors } from "./errors.ts";
import { type Host, withSignal } from "./host.ts";
import type { Log } from "./log.ts";

/**
 * - "ok": as it should be
 * - "note": works, but a person may want to know
 * - "problem": a command would fail, or ko is slow
 */
export type Status = "ok" | "note" | "problem";

/** Facts for scripts, by name. */
export type Facts = Readonly<Record<string, string | number | boolean | readonly string[]>>;

export interface Finding {
  /** The subject: `go`, `registry`. */
  readonly name: string;
  readonly status: Status;
  /** One line. */
  readonly message: string;
  /** What to type or to do. It may have several lines. */
  readonly hint?: string | undefined;
  readonly facts?: Facts | undefined;
}

export interface CheckContext {
  /** Kills the programs that it started when the signal aborts. */
  readonly host: Host;
  /** Its warnings become notes of the check. */
  readonly log: Log;
  /** Aborts at the time limit, and with the run. */
  readonly signal: AbortSignal;
}

export interface Check {
  /** The name of its findings. */
  readonly name: string;
  /** For the finding that there was no answer in time: `the daemon`. */
  readonly subject: string;
  /** The status of a failure. @default "problem" */
  readonly failure?: Status;
  /** Milliseconds. @default those that leave time for the end of ko */
  readonly limit?: number;
  /** For failures without a hint. */
  readonly hint?: string;
  /** True if it asks servers by name. @default false */
  readonly isRemote?: boolean;
  run(context: CheckContext): Promise<readonly Finding[]>;
}

/** Leaves time for the start of ko and for the end of the programs: 5 s in all. */
export const LIMIT_MS = 4000;

/** Milliseconds that the others have for their files before names are looked up. */
const HEAD_START_MS = 500;

/**
 * Runs all checks at once, those that ask servers by name a moment later.
 *
 * @returns their findings, in the order of the checks
 * @throws the reason of the host's signal, if it aborts
 */
export async function runChecks(
  checks: readonly Check[],
  options: { readonly host: Host; readonly log: Log },
): Promise<readonly Finding[]> {
  // A name server that is silent holds the threads that read files, too: the files come first, then the names.
  const local = new Map(
    checks.filter(({ isRemote }) => isRemote !== true).map((check) => [check, runCheck(check, options)]),
  );
  const files = Promise.allSettled(local.values());
  const start = Promise.race([files, systemClock.sleep(HEAD_START_MS, options.host.signal)]);
  const run = async (check: Check): Promise<readonly Finding[]> => {
    await start;
    return runCheck(check, options);
  };
  return (await Promise.all(checks.map((check) => local.get(check) ?? run(check)))).flat();
}

/** The finding for a failure: its message and its hint, each error of several on a line of its own. */
export function failed(name: string, error: KoError, more: Pick<Check, "failure" | "hint"> = {}): readonly Finding[] {
  if (error instanceof KoErrors) return error.errors.flatMap((each) => failed(name, each, more));
  const messages: string[] = [];
  let hint: string | undefined;
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    const { message } = at;
    if (!messages.some((outer) => outer.includes(message))) messages.push(message);
    if (at instanceof KoError) hint ??= at.hint;
  }
  return [{ name, status: more.failure ?? "problem", message: messages.join(": "), hint: hint ?? more.hint }];
}

async function runCheck(
  check: Check,
  { host, log }: { readonly host: Host; readonly log: Log },
): Promise<readonly Finding[]> {
  const { failure = "problem", hint, isRemote, name, subject } = check;
  const { limit = isRemote === true ? LIMIT_MS - HEAD_START_MS : LIMIT_MS } = check;
  const ending = new AbortController();
  const signal = AbortSignal.any([host.signal, ending.signal]);
  const warnings: string[] = [];
  const late: Finding = { name, status: failure, message: `${subject} did not answer within ${limit / 1000} s`, hint };
  const timer = setTimeout(() => ending.abort(new KoError(late.message)), limit);
  try {
    const work = check.run({
      host: probing(withSignal(host, signal)),
      log: { ...log, info: (message) => log.debug(message), warn: (message) => void warnings.push(message) },
      signal,
    });
    return [...(await until(work, signal)), ...warnings.map((message): Finding => ({ name, status: "note", message }))];
  } catch (error) {
    host.signal.throwIfAborted();
    if (ending.signal.aborted) return [late];
    if (!(error instanceof KoError)) throw error;
    return failed(name, error, { failure, ...(hint === undefined ? {} : { hint }) });
  } finally {
    clearTimeout(timer);
    ending.abort(new KoError("the check has ended"));
  }
}

/** The host, but it kills programs at once when their time is over: they only read. */
function probing(host: Host): Host {
  return { ...host, run: (argv, options = {}) => host.run(argv, { ...options, group: "probe" }) };
}
