/**
 * The outside world: environment, working directory, standard streams, signals, other programs, temporary folders.
 *
 * No other module reads `process.*`, spawns a program or looks at a clock; they get a {@link Host} or plain values.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CommandError, KoError } from "./errors.ts";

export interface RunOptions {
  /** @default the host's working directory */
  readonly cwd?: string;
  /** The whole environment of the program. @default the host's */
  readonly env?: Readonly<Record<string, string>>;
  /** @default nothing: the program reads end-of-file */
  readonly stdin?: Uint8Array | ReadableStream<Uint8Array> | "inherit";
  /** "inherit" passes the stream to ours of the same name. @default "capture" */
  readonly stdout?: "capture" | "inherit";
  /** "tee" shows what comes at once and captures it too. @default "capture" */
  readonly stderr?: "capture" | "inherit" | "tee";
  /** The most that is captured of each stream; more is an error (stdout) or cut at the front (stderr). @default 256 MiB */
  readonly maxBytes?: number;
  /** Ends the program's whole process group. @default the host's signal */
  readonly signal?: AbortSignal;
  /** Milliseconds after which the program is ended and the call fails. @default no limit */
  readonly timeout?: number;
  /** False keeps the program in our process group, so that a terminal's Ctrl-C reaches it. @default true */
  readonly ownGroup?: boolean;
}

export interface RunResult {
  readonly code: number;
  readonly stdout: Uint8Array;
  readonly stderr: string;
}

/** A folder that is gone, with all in it, when it is disposed of or the process is told to end. */
export interface TempFolder extends AsyncDisposable {
  readonly path: string;
}

export interface Host {
  readonly env: Readonly<Record<string, string>>;
  /** Absolute. */
  readonly cwd: string;
  /** As Node names it: `linux`, `darwin`, `win32`. */
  readonly platform: string;
  /** As Node names it: `x64`, `arm64`. */
  readonly arch: string;
  /** How many compressions and the like may run at once. */
  readonly cpus: number;
  /** Aborted by SIGINT and SIGTERM, with an {@link Interrupted} as reason. */
  readonly signal: AbortSignal;
  readonly stderrIsTerminal: boolean;
  now(): Date;
  /** Writes a result. @throws {KoError} If stdout is closed or full. */
  out(text: string): Promise<void>;
  /** Writes to stderr; what cannot be written is dropped. */
  err(text: string): void;
  /** Everything on standard input, at most `maxBytes`. */
  readStdin(maxBytes: number): Promise<Uint8Array>;
  /**
   * Runs a program to its end.
   *
   * @throws {CommandError} If it is not there, exits with another code than 0, is ended by a signal, or takes too long.
   */
  run(argv: readonly [string, ...string[]], options?: RunOptions): Promise<RunResult>;
  /** The absolute path of a program on PATH, or undefined. */
  findProgram(name: string): string | undefined;
  tempFolder(prefix: string): Promise<TempFolder>;
}

/** SIGINT or SIGTERM arrived: exit code 130 or 143. */
export class Interrupted extends KoError {
  override readonly name: string = "Interrupted";

  constructor(signal: "SIGINT" | "SIGTERM") {
    super(`interrupted by ${signal}`, { exitCode: signal === "SIGINT" ? 130 : 143 });
  }
}

/** The real world. Takes over SIGINT and SIGTERM: call it once, from the entry. */
export function createHost(): Host {
  const controller = new AbortController();
  const folders = new Set<string>();
  const groups = new Set<number>();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) {
        // A second signal: somebody is in a hurry. Leave nothing behind all the same.
        for (const pid of groups) killGroup(pid, "SIGKILL");
        for (const folder of folders) rmSync(folder, { recursive: true, force: true });
        process.exit(name === "SIGINT" ? 130 : 143);
      }
      controller.abort(new Interrupted(name));
    });
  }
  const env: Record<string, string> = {};
  for (const [key, value] of Object.entries(process.env)) if (value !== undefined) env[key] = value;
  const host: Host = {
    env,
    cwd: process.cwd(),
    platform: process.platform,
    arch: process.arch,
    cpus: navigator.hardwareConcurrency,
    signal: controller.signal,
    get stderrIsTerminal() {
      return process.stderr.isTTY;
    },
    now: () => new Date(),
    out: writeResult,
    err: (text) => {
      try {
        void Bun.stderr.writer().write(text);
      } catch {
        // Nobody reads our talk: the work goes on.
      }
    },
    readStdin: async (maxBytes) => {
      const chunks: Uint8Array[] = [];
      let size = 0;
      for await (const chunk of Bun.stdin.stream()) {
        size += chunk.byteLength;
        if (size > maxBytes) throw new KoError(`Cannot read standard input: more than ${maxBytes} bytes`);
        chunks.push(chunk);
      }
      return new Uint8Array(Buffer.concat(chunks));
    },
    run: (argv, options = {}) =>
      runProgram(argv, {
        ...options,
        cwd: options.cwd ?? host.cwd,
        env: options.env ?? host.env,
        signal: options.signal ?? host.signal,
        groups,
      }),
    findProgram: (name) => Bun.which(name, { PATH: host.env["PATH"] ?? "", cwd: host.cwd }) ?? undefined,
    tempFolder: async (prefix) => {
      const path = await mkdtemp(join(host.env["TMPDIR"] || tmpdir(), `${prefix}-`));
      folders.add(path);
      return {
        path,
        [Symbol.asyncDispose]: async () => {
          await rm(path, { recursive: true, force: true });
          folders.delete(path);
        },
      };
    },
  };
  return host;
}

async function writeResult(text: string): Promise<void> {
  try {
    // Not process.stdout.write: it cuts what a pipe cannot take at once (spec/bun.md 1).
    const written = await Bun.write(Bun.stdout, text);
    if (written === Buffer.byteLength(text)) return;
    throw new Error(`only ${written} bytes were taken`);
  } catch (cause) {
    throw new KoError("Cannot write to standard output", { cause });
  }
}

interface RunProgramOptions extends RunOptions {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** Process groups that live, for the hurried end. */
  readonly groups: Set<number>;
}

async function runProgram(argv: readonly [string, ...string[]], options: RunProgramOptions): Promise<RunResult> {
  options.signal.throwIfAborted();
  const ownGroup = options.ownGroup ?? true;
  const maxBytes = options.maxBytes ?? 256 * 1024 * 1024;
  const fail = (why: string, more: { code?: number; signal?: string; stderr?: string; hint?: string }): CommandError =>
    new CommandError(`Cannot run ${argv[0]}: ${why}`, {
      argv,
      code: more.code,
      signal: more.signal,
      stderr: more.stderr ?? "",
      hint: more.hint,
    });
  let child: Bun.Subprocess;
  try {
    child = Bun.spawn([...argv], {
      cwd: options.cwd,
      env: options.env,
      detached: ownGroup,
      stdin: options.stdin ?? "ignore",
      stdout: options.stdout === "inherit" ? "inherit" : "pipe",
      stderr: options.stderr === "inherit" ? "inherit" : "pipe",
    });
  } catch (error) {
    const missing = error instanceof Error && "code" in error && error.code === "ENOENT";
    throw missing
      ? fail("it is not installed, or not on PATH", { hint: `Install ${argv[0]}, or put its folder on PATH.` })
      : fail(String(error), {});
  }
  const end = (signal: "SIGTERM" | "SIGKILL"): void => {
    if (ownGroup) killGroup(child.pid, signal);
    else child.kill(signal);
  };
  let timedOut = false;
  let killTimer: ReturnType<typeof setTimeout> | undefined;
  const stop = (): void => {
    end("SIGTERM");
    killTimer = setTimeout(() => end("SIGKILL"), 3000);
  };
  const timer =
    options.timeout === undefined
      ? undefined
      : setTimeout(() => {
          timedOut = true;
          stop();
        }, options.timeout);
  if (ownGroup) options.groups.add(child.pid);
  options.signal.addEventListener("abort", stop, { once: true });
  try {
    const [stdout, stderr, code] = await Promise.all([
      capture(child.stdout, maxBytes, undefined),
      capture(child.stderr, maxBytes, options.stderr === "tee" ? Bun.stderr.writer() : undefined),
      child.exited,
    ]);
    options.signal.throwIfAborted();
    const text = stderr.text();
    if (timedOut) throw fail(`no answer within ${(options.timeout ?? 0) / 1000} s`, { stderr: text });
    if (stdout.cut) throw fail(`it wrote more than ${maxBytes} bytes`, { stderr: text });
    const signal = child.signalCode === null ? undefined : String(child.signalCode);
    if (signal !== undefined) throw fail(`ended by ${signal}`, { signal, stderr: text });
    if (code !== 0) throw fail(`exit code ${code}`, { code, stderr: text });
    return { code, stdout: stdout.bytes(), stderr: text };
  } finally {
    clearTimeout(timer);
    clearTimeout(killTimer);
    options.signal.removeEventListener("abort", stop);
    // What a program left running in its group (a helper that forked) must not outlive a stop.
    if (ownGroup && (timedOut || options.signal.aborted)) killGroup(child.pid, "SIGKILL");
    options.groups.delete(child.pid);
  }
}

interface Captured {
  readonly cut: boolean;
  bytes(): Uint8Array;
  text(): string;
}

/** Reads at once, so that the pipe's flow control works (spec/bun.md 5). Keeps the last `maxBytes`. */
async function capture(
  stream: ReadableStream<Uint8Array> | number | undefined | null,
  maxBytes: number,
  tee: Bun.FileSink | undefined,
): Promise<Captured> {
  let chunks: Uint8Array[] = [];
  let size = 0;
  let cut = false;
  if (stream instanceof ReadableStream) {
    for await (const chunk of stream) {
      if (tee !== undefined) {
        await tee.write(chunk);
        await tee.flush();
      }
      size += chunk.byteLength;
      chunks.push(chunk);
      if (size > maxBytes) {
        cut = true;
        chunks = [Buffer.concat(chunks).subarray(-maxBytes)];
        size = maxBytes;
      }
    }
  }
  const bytes = (): Uint8Array => (chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks));
  return { cut, bytes, text: () => new TextDecoder().decode(bytes()) };
}

function killGroup(pid: number, signal: "SIGTERM" | "SIGKILL"): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // It has ended meanwhile.
  }
}

/**
 * Lets at most `size` of the given works run at once; the others wait in the order they came.
 */
export function createLimit(size: number): <T>(work: () => Promise<T>) => Promise<T> {
  let free = size;
  const waiting: (() => void)[] = [];
  return async (work) => {
    if (free > 0) free--;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next === undefined) free++;
      else next();
    }
  };
}
