/**
 * Running programs as a user's shell does: to the end, or until a signal, with all that they say.
 */
import { readFileSync, readdirSync } from "node:fs";

/** How a program ended. */
export interface Result {
  /** The exit code; 128 plus the number of the signal that ended it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly cwd: string;
  /** The whole environment. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** @default nothing */
  readonly stdin?: string;
}

/** A program that runs. */
export interface Running {
  readonly pid: number;
  /** What it has written so far. */
  stdout(): string;
  stderr(): string;
  /** Its end; always waited for by who started it. */
  readonly result: Promise<Result>;
}

/** Runs a program to its end, whatever its exit code. */
export async function runToEnd(argv: readonly string[], options: RunOptions): Promise<Result> {
  return start(argv, options).result;
}

/** Starts a program. @param options.ownGroup true makes it the leader of a process group, as a shell's jobs are */
export function start(argv: readonly string[], options: RunOptions & { readonly ownGroup?: boolean }): Running {
  const { cwd, env, stdin, ownGroup = false } = options;
  const child = Bun.spawn([...argv], {
    cwd,
    env,
    detached: ownGroup,
    stdin: stdin === undefined ? "ignore" : new TextEncoder().encode(stdin),
    stdout: "pipe",
    stderr: "pipe",
  });
  const said = { stdout: "", stderr: "" };
  const listen = async (name: keyof typeof said): Promise<void> => {
    const decoder = new TextDecoder();
    for await (const chunk of child[name]) said[name] += decoder.decode(chunk, { stream: true });
  };
  const end = async (): Promise<Result> => {
    const [code] = await Promise.all([child.exited, listen("stdout"), listen("stderr")]);
    return { code, ...said };
  };
  return { pid: child.pid, stdout: () => said.stdout, stderr: () => said.stderr, result: end() };
}

/** Milliseconds: what has not happened by then does not happen, on the busiest machine. */
const PATIENCE = 90_000;

/**
 * Waits until something is so.
 *
 * @param running the program that makes it so, if one does
 * @throws {Error} If the program ends before that, or it takes unreasonably long.
 */
export async function waitUntil(
  isSo: () => boolean | Promise<boolean>,
  running?: Pick<Running, "result" | "stderr">,
  { patience = PATIENCE }: { readonly patience?: number } = {},
): Promise<void> {
  let ended: Result | undefined;
  void running?.result.then((result) => (ended = result));
  const deadline = performance.now() + patience;
  while (!(await isSo())) {
    if (ended !== undefined) throw new Error(`it ended with ${ended.code} too early: ${ended.stderr}`);
    if (performance.now() > deadline) throw new Error(`it does not happen; so far: ${running?.stderr() ?? "nothing"}`);
    await Bun.sleep(5);
  }
}

/**
 * The command lines of the processes whose environment holds `name=value`, once they had a moment to end; those that wait to
 * be reaped have none.
 */
export async function survivorsWith(name: string, value: string): Promise<readonly string[]> {
  const isOver = (): boolean => processesWith(name, value).length === 0;
  await waitUntil(isOver, undefined, { patience: 20_000 }).catch(() => {});
  return processesWith(name, value);
}

function processesWith(name: string, value: string): readonly string[] {
  const read = (pid: string, file: string): readonly string[] => {
    try {
      return readFileSync(`/proc/${pid}/${file}`, "utf8").split("\0");
    } catch {
      // It ended meanwhile.
      return [];
    }
  };
  return readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => read(pid, "environ").includes(`${name}=${value}`))
    .map((pid) => read(pid, "cmdline").join(" "));
}
