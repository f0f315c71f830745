/**
 * The outside world: environment, working directory, standard streams, signals, other programs, temporary folders.
 *
 * No other module reads `process.*`, spawns a program or looks at a clock; they get a {@link Host} or plain values.
 */
import { existsSync, fstatSync, readFileSync, rmSync, writeSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { CommandError, KoError, messageOf } from "./errors.ts";

export interface RunOptions {
  /** @default the host's working directory */
  readonly cwd?: string;
  /** The whole environment of the program. @default the host's */
  readonly env?: Readonly<Record<string, string>>;
  /** @default nothing: the program reads end-of-file */
  readonly stdin?: Uint8Array | ReadableStream<Uint8Array> | "inherit";
  /**
   * "inherit" passes the stream to ours of the same name; a function gets its bytes as they come, is waited for, and
   * nothing is captured. @default "capture"
   */
  readonly stdout?: "capture" | "inherit" | ((chunk: Uint8Array) => unknown);
  /** "tee" shows what comes at once and captures it too; a function gets its text as it comes. @default "capture" */
  readonly stderr?: "capture" | "inherit" | "tee" | ((text: string) => void);
  /** The most that is captured of each stream; more ends the program (stdout) or is cut at the front (stderr). @default 256 MiB */
  readonly maxBytes?: number;
  /** Ends the program's whole process group. @default the host's signal */
  readonly signal?: AbortSignal;
  /** Milliseconds after which the program is ended and the call fails. @default no limit */
  readonly timeout?: number;
  /** True returns the result of a program that exits with another code than 0. @default false: that is an error */
  readonly anyExitCode?: boolean;
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
  /** The number of the user; undefined on Windows. */
  readonly userId: number | undefined;
  /** Aborted by SIGINT, SIGTERM and SIGHUP, with an {@link Interrupted} as reason. */
  readonly signal: AbortSignal;
  readonly stderrIsTerminal: boolean;
  /** Columns of the terminal that stderr is; undefined if it is none, or does not say. */
  readonly stderrColumns: number | undefined;
  now(): Date;
  /**
   * Milliseconds, with fractions, since the runtime began: never goes back, whatever is done to the clock. The system's
   * loading of the executable before that is not in it.
   */
  monotonic(): number;
  /** Writes a result, after everything that was written before. @throws {KoError} If stdout is closed or full. */
  out(data: string | Uint8Array): Promise<void>;
  /** Writes to stderr, in the order of the calls; what cannot be written is dropped. */
  err(text: string): void;
  /**
   * Everything on standard input.
   *
   * @throws {KoError} If it is more than `maxBytes`, cannot be read, or the process is told to end meanwhile.
   */
  readStdin(maxBytes: number): Promise<Uint8Array>;
  /**
   * Runs a program to its end.
   *
   * @throws {CommandError} If it is not there, exits with another code than 0, is ended by a signal, or takes too long.
   */
  run(argv: readonly [string, ...string[]], options?: RunOptions): Promise<RunResult>;
  /** The absolute path of a program on PATH, or undefined. */
  findProgram(name: string): string | undefined;
  /**
   * @param parent absolute; @default the system's folder for temporary files
   * @throws {KoError} If it cannot be made.
   */
  tempFolder(prefix: string, parent?: string): Promise<TempFolder>;
}

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** As shells count: 128 and the signal's number. */
const EXIT_CODES: Readonly<Record<(typeof SIGNALS)[number], number>> = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 };

/** SIGINT, SIGTERM or SIGHUP arrived: exit code 130, 143 or 129. */
export class Interrupted extends KoError {
  override readonly name: string = "Interrupted";

  constructor(signal: (typeof SIGNALS)[number]) {
    super(`interrupted by ${signal}`, { exitCode: EXIT_CODES[signal] });
  }
}

/**
 * True under `nohup`, which wants the terminal's end survived: a handler of ours would undo that. Only Linux tells;
 * elsewhere SIGHUP keeps its default.
 */
function isHangupIgnored(): boolean {
  if (process.platform !== "linux") return true;
  try {
    const ignored = /^SigIgn:\s*([0-9a-f]+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "1";
    return (Number.parseInt(ignored.slice(-1), 16) & 1) === 1;
  } catch {
    return true;
  }
}

/** The real world. Takes over SIGINT, SIGTERM and SIGHUP: call it once, from the entry. */
export function createHost(): Host {
  const controller = new AbortController();
  const folders = new Set<string>();
  const groups = new Set<number>();
  const write = createWriter();
  // Nobody reads our talk if this fails: the work goes on.
  const talk = (data: string | Uint8Array): Promise<unknown> => write(Bun.stderr, data).catch(() => {});
  for (const name of SIGNALS) {
    if (name === "SIGHUP" && isHangupIgnored()) continue;
    process.on(name, () => {
      if (controller.signal.aborted) {
        // A second signal: somebody is in a hurry. Leave nothing behind all the same.
        for (const pid of groups) killGroup(pid, "SIGKILL");
        for (const folder of folders) rmSync(folder, { recursive: true, force: true });
        process.exit(EXIT_CODES[name]);
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
    userId: process.getuid?.(),
    signal: controller.signal,
    get stderrIsTerminal() {
      return process.stderr.isTTY;
    },
    get stderrColumns() {
      return process.stderr.isTTY ? process.stderr.columns : undefined;
    },
    now: () => new Date(),
    monotonic: () => performance.now(),
    out: async (data) => {
      try {
        const written = await write(Bun.stdout, data);
        if (written !== Buffer.byteLength(data)) throw new Error(`only ${written} bytes were taken`);
      } catch (cause) {
        throw new KoError("Cannot write to standard output", { cause });
      }
    },
    err: (text) => void talk(text),
    readStdin: (maxBytes) => readStdin(maxBytes, controller.signal),
    run: (argv, options = {}) =>
      runProgram(argv, {
        ...options,
        cwd: options.cwd ?? host.cwd,
        env: options.env ?? host.env,
        signal: options.signal ?? host.signal,
        groups,
        talk,
      }),
    findProgram: (name) => Bun.which(name, { PATH: host.env["PATH"] ?? "", cwd: host.cwd }) ?? undefined,
    tempFolder: async (prefix, parent = resolve(host.cwd, host.env["TMPDIR"] || tmpdir())) => {
      const path = await mkdtemp(join(parent, `${prefix}-`)).catch((cause: unknown) => {
        throw new KoError(`Cannot make a temporary folder in "${parent}"`, {
          cause,
          hint: "Set TMPDIR to a folder that can be written to.",
        });
      });
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

/** The same world with another signal: what it starts ends with that one. */
export function withSignal(host: Host, signal: AbortSignal): Host {
  return {
    ...host,
    signal,
    run: (argv, options = {}) => host.run(argv, { ...options, signal: options.signal ?? signal }),
  };
}

/** Writes to standard output and error: each text whole, in the order of the calls, also where both are one terminal. */
function createWriter(): (file: Bun.BunFile, data: string | Uint8Array) => Promise<number> {
  let last: Promise<unknown> = Promise.resolve();
  return async (file, data) => {
    // Bun.write() of nothing empties the file that the stream goes to.
    if (data.length === 0) return 0;
    // Not process.stdout.write: it cuts what a pipe cannot take at once (spec/bun.md 1). Not file.writer(): what it
    // has not flushed is lost at the end of the process.
    const written = last.then(() => writeToStream(file, data));
    last = written.catch(() => {});
    return written;
  };
}

async function writeToStream(file: Bun.BunFile, data: string | Uint8Array): Promise<number> {
  const descriptor = file === Bun.stdout ? 1 : 2;
  if (!fstatSync(descriptor).isFile()) return Bun.write(file, data);
  // Bun.write() reserves space from the file's start: what is appended to a file would come after as many zeros.
  const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
  let at = 0;
  while (at < bytes.byteLength) at += writeSync(descriptor, bytes, at);
  return at;
}

async function readStdin(maxBytes: number, signal: AbortSignal): Promise<Uint8Array> {
  signal.throwIfAborted();
  const chunks: Uint8Array[] = [];
  let size = 0;
  let stop = (): void => {};
  try {
    const reader = Bun.stdin.stream().getReader();
    // A terminal may stay silent for ever: Ctrl-C ends the waiting.
    stop = () => void reader.cancel().catch(() => {});
    signal.addEventListener("abort", stop, { once: true });
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      size += read.value.byteLength;
      if (size > maxBytes) break;
      chunks.push(read.value);
    }
  } catch (cause) {
    signal.throwIfAborted();
    throw new KoError("Cannot read standard input", { cause });
  } finally {
    signal.removeEventListener("abort", stop);
    stop();
  }
  signal.throwIfAborted();
  if (size > maxBytes) throw new KoError(`Cannot read standard input: it is more than ${maxBytes} bytes`);
  return new Uint8Array(Buffer.concat(chunks));
}

/** Milliseconds: one turn of the event loop, with reserve. */
const SIGNAL_LAG_MS = 20;

interface RunProgramOptions extends RunOptions {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** Process groups that live, for the hurried end. */
  readonly groups: Set<number>;
  /** Writes to our stderr. */
  readonly talk: (data: Uint8Array) => Promise<unknown>;
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
    if (!existsSync(options.cwd)) throw fail(`its working directory "${options.cwd}" does not exist`, {});
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw fail(messageOf(error), {});
    throw fail("it is not installed, or not on PATH", { hint: `Install ${argv[0]}, or put its folder on PATH.` });
  }
  const end = (signal: "SIGTERM" | "SIGKILL"): void => {
    if (ownGroup) killGroup(child.pid, signal);
    else child.kill(signal);
  };
  const stopped: { by: "timeout" | "size" | "signal" | undefined } = { by: undefined };
  let killTimer: ReturnType<typeof setTimeout> | undefined;
  const abandon = new AbortController();
  const stop = (by: "timeout" | "size" | "signal"): void => {
    if (stopped.by !== undefined) return;
    stopped.by = by;
    end("SIGTERM");
    killTimer = setTimeout(() => {
      end("SIGKILL");
      // What left the group lives on, and may hold our pipes open for ever.
      abandon.abort();
    }, 3000);
  };
  const stopOnSignal = (): void => stop("signal");
  const timer = options.timeout === undefined ? undefined : setTimeout(() => stop("timeout"), options.timeout);
  if (ownGroup) options.groups.add(child.pid);
  options.signal.addEventListener("abort", stopOnSignal, { once: true });
  try {
    const [stdout, stderr, code] = await Promise.all([
      readHead(child.stdout, {
        maxBytes,
        abandon: abandon.signal,
        onTooMuch: () => stop("size"),
        listen: typeof options.stdout === "function" ? options.stdout : undefined,
      }),
      readTail(child.stderr, { maxBytes, abandon: abandon.signal, listen: listener(options) }),
      child.exited,
    ]);
    // A terminal's Ctrl-C goes to the whole group: the news of the program's end may overtake our own signal.
    if (!ownGroup && code !== 0) await Bun.sleep(SIGNAL_LAG_MS);
    options.signal.throwIfAborted();
    const text = new TextDecoder().decode(stderr);
    if (stopped.by === "timeout") throw fail(`no answer within ${(options.timeout ?? 0) / 1000} s`, { stderr: text });
    if (stopped.by === "size") throw fail(`it wrote more than ${maxBytes} bytes`, { stderr: text });
    const signal = child.signalCode === null ? undefined : String(child.signalCode);
    if (signal !== undefined) throw fail(`ended by ${signal}`, { signal, stderr: text });
    if (code !== 0 && options.anyExitCode !== true) throw fail(`exit code ${code}`, { code, stderr: text });
    return { code, stdout, stderr: text };
  } finally {
    clearTimeout(timer);
    clearTimeout(killTimer);
    options.signal.removeEventListener("abort", stopOnSignal);
    // What a program left running in its group (a helper that forked) must not outlive a stop.
    if (ownGroup && stopped.by !== undefined) killGroup(child.pid, "SIGKILL");
    options.groups.delete(child.pid);
  }
}

function listener({ stderr, talk }: RunProgramOptions): ((chunk: Uint8Array) => unknown) | undefined {
  if (typeof stderr !== "function") return stderr === "tee" ? talk : undefined;
  const decoder = new TextDecoder();
  return (chunk) => stderr(decoder.decode(chunk, { stream: true }));
}

interface ReadOptions {
  readonly maxBytes: number;
  /** Ends the reading, although the stream has not ended. */
  readonly abandon: AbortSignal;
}

interface ReadHeadOptions {
  readonly onTooMuch: () => void;
  readonly listen: ((chunk: Uint8Array) => unknown) | undefined;
}

/** The first `maxBytes`; the rest is read and dropped, so that the program can end. `listen` gets all instead. */
async function readHead(
  stream: Bun.Subprocess["stdout"],
  { maxBytes, abandon, onTooMuch, listen }: ReadOptions & ReadHeadOptions,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunksOf(stream, abandon)) {
    if (listen !== undefined) {
      await listen(chunk);
      continue;
    }
    size += chunk.byteLength;
    if (size > maxBytes) onTooMuch();
    else chunks.push(chunk);
  }
  return joined(chunks);
}

/** The last `maxBytes`. `listen` gets everything, and is waited for. */
async function readTail(
  stream: Bun.Subprocess["stderr"],
  { maxBytes, abandon, listen }: ReadOptions & { readonly listen: ((chunk: Uint8Array) => unknown) | undefined },
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunksOf(stream, abandon)) {
    if (listen !== undefined) await listen(chunk);
    chunks.push(chunk);
    size += chunk.byteLength;
    for (let [first] = chunks; first && size - first.byteLength >= maxBytes; [first] = chunks) {
      size -= first.byteLength;
      chunks.shift();
    }
  }
  return joined(chunks).subarray(-maxBytes);
}

/** Reads at once, so that the pipe's flow control works (spec/bun.md 5). */
async function* chunksOf(
  stream: Bun.Subprocess["stdout"],
  abandon: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  if (!(stream instanceof ReadableStream)) return;
  const reader = stream.getReader();
  const cancel = (): void => void reader.cancel().catch(() => {});
  abandon.addEventListener("abort", cancel, { once: true });
  for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
}

function joined(chunks: readonly Uint8Array[]): Uint8Array {
  return chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks);
}

function killGroup(pid: number, signal: "SIGTERM" | "SIGKILL"): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // It has ended meanwhile.
  }
}
