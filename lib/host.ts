/**
 * The outside world: environment, working directory, clock, standard streams, signals, processes, temporary folders.
 *
 * Only this module reads `process.*` and starts processes; other modules get a {@link Host} or plain values. The clock
 * is read in async.ts too, by `systemClock`.
 */
import { existsSync, fstatSync, readFileSync, rmSync, writeSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { codeOf, CommandError, KoError, messageOf } from "./errors.ts";
import { readHead, readLine, readTail } from "./host-streams.ts";

export interface RunOptions {
  /** @default the host's working directory */
  readonly cwd?: string;
  /** The whole environment. @default the host's */
  readonly env?: Readonly<Record<string, string>>;
  /** @default an empty stdin */
  readonly stdin?: Uint8Array | ReadableStream<Uint8Array> | "inherit";
  /**
   * "inherit" shares our stdout. A function gets each chunk and is awaited; then nothing is captured.
   *
   * @default "capture"
   */
  readonly stdout?: "capture" | "inherit" | ((chunk: Uint8Array) => unknown);
  /**
   * "inherit" shares our stderr; "tee" captures the text and writes it to our stderr at once; a function gets the text
   * as well. @default "capture"
   */
  readonly stderr?: "capture" | "inherit" | "tee" | ((text: string) => void);
  /** Bytes captured of each stream: a longer stdout ends the process, stderr keeps its end. @default 256 MiB */
  readonly maxBytes?: number;
  /** Ends the whole process group. @default the host's signal */
  readonly signal?: AbortSignal;
  /** Milliseconds until the process is ended and the call fails. @default no limit */
  readonly timeout?: number;
  /** True returns the result for all exit codes. @default false: others than 0 throw */
  readonly anyExitCode?: boolean;
  /** "terminal": ours, which its Ctrl-C reaches; "probe": killed at once, for programs that only read. @default "own" */
  readonly group?: "own" | "terminal" | "probe";
}

export interface RunResult {
  readonly code: number;
  readonly stdout: Uint8Array;
  readonly stderr: string;
}

/** A temporary folder. It is removed when it is disposed of, and by a second signal. */
export interface TempFolder extends AsyncDisposable {
  readonly path: string;
}

export interface Host {
  readonly env: Readonly<Record<string, string>>;
  /** Absolute. */
  readonly cwd: string;
  /** Node's name: `linux`, `darwin`, `win32`. */
  readonly platform: string;
  /** Node's name: `x64`, `arm64`. */
  readonly arch: string;
  /** Processors, bounded by the CPU affinity. */
  readonly cpus: number;
  /** Numeric; undefined on Windows. */
  readonly userId: number | undefined;
  /** Aborted by SIGINT, SIGTERM and SIGHUP, with an {@link Interrupted} as reason. */
  readonly signal: AbortSignal;
  readonly stdinIsTerminal: boolean;
  readonly stderrIsTerminal: boolean;
  /** Columns of the terminal; undefined if stdout is not a terminal, or the terminal does not report them. */
  readonly stdoutColumns: number | undefined;
  /** Columns of the terminal; undefined if stderr is not a terminal, or the terminal does not report them. */
  readonly stderrColumns: number | undefined;
  /** Rows of the terminal; undefined in the same cases. */
  readonly stderrRows: number | undefined;
  now(): Date;
  /** Milliseconds, with fractions, since the start of the runtime: monotonic, without the load of the executable. */
  monotonic(): number;
  /** Writes to stdout, after all earlier writes; nothing for "". @throws {KoError} If stdout is closed or full. */
  out(data: string | Uint8Array): Promise<void>;
  /** Writes to stderr, in the order of the calls. Failures are ignored. */
  err(text: string): void;
  /** Settles when stdout and stderr have taken all that was written. */
  drained(): Promise<void>;
  /** In GitHub Actions only: writes a workflow command. @param line without line end; escaped */
  readonly annotate?: (line: string) => void;
  /**
   * Reads stdin to its end.
   *
   * @throws {KoError} If stdin has more than `maxBytes`, cannot be read, or a signal comes meanwhile.
   */
  readStdin(maxBytes: number): Promise<Uint8Array>;
  /** Reads a line that a person types, without its end; undefined at the end of stdin. @throws as `readStdin()` */
  readLine(): Promise<string | undefined>;
  /**
   * Runs a program to its end.
   *
   * @throws {CommandError} If the program is not found, exits with another code than 0, is ended by a signal, or takes
   * longer than `timeout`.
   */
  run(argv: readonly [string, ...string[]], options?: RunOptions): Promise<RunResult>;
  /** Finds a program on PATH. Returns its absolute path. */
  findProgram(name: string): string | undefined;
  /**
   * Makes a temporary folder.
   *
   * @param parent absolute; @default the system's folder for temporary files
   * @throws {KoError} If that fails.
   */
  tempFolder(prefix: string, parent?: string): Promise<TempFolder>;
}

/** `O_CLOEXEC` of Linux: a stream that a process is started with never has it. */
const CLOSE_ON_EXEC = 0o2000000;

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** The exit codes of shells: 128 plus the signal's number. */
const EXIT_CODES: Readonly<Record<(typeof SIGNALS)[number], number>> = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 };

/** The run was ended by SIGINT, SIGTERM or SIGHUP. The exit code is 130, 143 or 129. */
export class Interrupted extends KoError {
  override readonly name: string = "Interrupted";

  constructor(signal: (typeof SIGNALS)[number]) {
    super(`interrupted by ${signal}`, { exitCode: EXIT_CODES[signal], kind: "interrupted" });
  }
}

function readEnvironment(): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(process.env).map(([key, value = ""]) => [key, value]));
}

/** Makes the host of this process. It handles SIGINT, SIGTERM and SIGHUP, so call it once, from the entry. */
export function createHost(): Host {
  const controller = new AbortController();
  const folders = new Set<string>();
  const groups = new Set<number>();
  const write = createWriter();
  // Without stderr the work goes on.
  const writeStderr = (data: string | Uint8Array): Promise<unknown> => write(Bun.stderr, data).catch(() => {});
  for (const name of SIGNALS) {
    if (name === "SIGHUP" && isHangupIgnored()) continue;
    process.on(name, () => {
      if (controller.signal.aborted) {
        // A second signal ends ko at once, without waiting for `await using`.
        for (const pid of groups) killGroup(pid, "SIGKILL");
        for (const folder of folders) rmSync(folder, { recursive: true, force: true });
        process.exit(EXIT_CODES[name]);
      }
      controller.abort(new Interrupted(name));
    });
  }
  const host: Host = {
    env: readEnvironment(),
    cwd: process.cwd(),
    platform: process.platform,
    arch: process.arch,
    cpus: navigator.hardwareConcurrency,
    userId: process.getuid?.(),
    signal: controller.signal,
    get stdinIsTerminal() {
      return isTerminal(0);
    },
    get stdoutColumns() {
      return isTerminal(1) ? process.stdout.columns : undefined;
    },
    get stderrIsTerminal() {
      return isTerminal(2);
    },
    get stderrColumns() {
      return isTerminal(2) ? process.stderr.columns : undefined;
    },
    get stderrRows() {
      return isTerminal(2) ? process.stderr.rows : undefined;
    },
    now: () => new Date(),
    monotonic: () => performance.now(),
    out: async (data) => {
      try {
        if (isStdoutClosed()) throw new Error("it is closed");
        const written = await write(Bun.stdout, data);
        if (written !== Buffer.byteLength(data)) throw new Error(`only ${written} bytes were taken`);
      } catch (cause) {
        throw new KoError("Cannot write to standard output", { cause });
      }
    },
    err: (text) => void writeStderr(text),
    drained: () => write.drained(),
    readStdin: (maxBytes) => readStdin(maxBytes, controller.signal),
    readLine: () => readLine(Bun.stdin.stream(), controller.signal),
    run: (argv, options = {}) =>
      runProgram(argv, {
        ...options,
        cwd: options.cwd ?? host.cwd,
        env: options.env ?? host.env,
        signal: options.signal ?? host.signal,
        groups,
        writeStderr,
      }),
    findProgram: (name) => Bun.which(name, { PATH: host.env["PATH"] ?? "", cwd: host.cwd }) ?? undefined,
    tempFolder: (prefix, parent = resolve(host.cwd, host.env["TMPDIR"] || tmpdir())) =>
      makeTempFolder(join(parent, `${prefix}-`), { parent, folders }),
  };
  return host;
}

/** @param options.folders those to remove at a second signal */
async function makeTempFolder(
  prefix: string,
  { folders, parent }: { readonly parent: string; readonly folders: Set<string> },
): Promise<TempFolder> {
  const path = await mkdtemp(prefix).catch((cause: unknown) => {
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
}

/** Returns the host with another signal, which ends the processes that it starts. */
export function withSignal(host: Host, signal: AbortSignal): Host {
  return {
    ...host,
    signal,
    run: (argv, options = {}) => host.run(argv, { ...options, signal: options.signal ?? signal }),
  };
}

/** The user's folder for settings: `$XDG_CONFIG_HOME`, else `~/.config`; undefined if no home directory is known. */
export function findConfigFolder(env: Host["env"]): string | undefined {
  const home = env["HOME"] || env["USERPROFILE"];
  return env["XDG_CONFIG_HOME"] || (home ? join(home, ".config") : undefined);
}

/** Returns the hint for a program that is not on PATH. */
export function installHint(program: string): string {
  return `Install ${program}, or add its directory to PATH.`;
}

/**
 * Reports whether SIGHUP is ignored, as under `nohup`: a handler of ours would undo that. Only Linux can tell; on other
 * systems the answer is true, so that SIGHUP keeps its default.
 */
function isHangupIgnored(): boolean {
  if (process.platform !== "linux") return true;
  try {
    const status = readFileSync("/proc/self/status", "utf8");
    // A regular expression would take ten times as long at the start of a process.
    const start = status.indexOf("\nSigIgn:");
    const end = status.indexOf("\n", start + 1);
    return start === -1 || (Number.parseInt(status.charAt(end - 1), 16) & 1) === 1;
  } catch {
    return true;
  }
}

/** Reports whether a descriptor is a terminal. */
function isTerminal(descriptor: number): boolean {
  try {
    // Only a character device can be one. Bun's module for terminals takes 10 ms to load.
    const mayBe = process.platform === "win32" || fstatSync(descriptor).isCharacterDevice();
    return mayBe && process.getBuiltinModule("node:tty").isatty(descriptor);
  } catch {
    return false;
  }
}

/** Reports whether the process was started without stdout: Bun has put /dev/null there (docs/rules.md, Bun 1). */
function isStdoutClosed(): boolean {
  try {
    const [, flags = "0"] = /^flags:\s*([0-7]+)$/m.exec(readFileSync("/proc/self/fdinfo/1", "utf8")) ?? [];
    return (Number.parseInt(flags, 8) & CLOSE_ON_EXEC) !== 0;
  } catch {
    return false;
  }
}

interface Writer {
  (file: Bun.BunFile, data: string | Uint8Array): Promise<number>;
  readonly drained: () => Promise<void>;
}

/** Makes a writer for stdout and stderr that keeps the order of the calls across both. */
function createWriter(): Writer {
  let last: Promise<unknown> = Promise.resolve();
  const write = async (file: Bun.BunFile, data: string | Uint8Array): Promise<number> => {
    // Bun.write() of an empty text would truncate the file that the stream goes to.
    if (data.length === 0) return 0;
    // process.stdout.write() loses data if a pipe cannot take all at once (docs/rules.md, Bun 1), and file.writer()
    // loses unflushed data at the end of the process.
    const written = last.then(() => writeToStream(file, data));
    last = written.catch(() => {});
    return written;
  };
  return Object.assign(write, { drained: () => last.then(() => {}) });
}

async function writeToStream(file: Bun.BunFile, data: string | Uint8Array): Promise<number> {
  const descriptor = file === Bun.stdout ? 1 : 2;
  if (!fstatSync(descriptor).isFile()) return Bun.write(file, data);
  // Bun.write() preallocates from the file's start: appended to a file, the text would follow as many zeros.
  const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
  let at = 0;
  while (at < bytes.byteLength) at += writeSync(descriptor, bytes, at);
  return at;
}

async function readStdin(maxBytes: number, signal: AbortSignal): Promise<Uint8Array> {
  const { readStream } = await import("./async.ts");
  let bytes: Uint8Array | undefined;
  try {
    bytes = await readStream(Bun.stdin.stream(), { maxBytes, signal });
  } catch (cause) {
    signal.throwIfAborted();
    throw new KoError("Cannot read standard input", { cause });
  }
  if (bytes === undefined) throw new KoError(`Cannot read standard input: it is more than ${maxBytes} bytes`);
  return bytes;
}

/** Milliseconds: one turn of the event loop, with reserve. */
const SIGNAL_LAG_MS = 20;

interface RunProgramOptions extends RunOptions {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** The running process groups, which a second signal kills. */
  readonly groups: Set<number>;
  readonly writeStderr: (data: Uint8Array) => Promise<unknown>;
}

async function runProgram(argv: readonly [string, ...string[]], options: RunProgramOptions): Promise<RunResult> {
  options.signal.throwIfAborted();
  const ownGroup = options.group !== "terminal";
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
    if (codeOf(error) !== "ENOENT") throw fail(messageOf(error), {});
    throw fail("it is not installed, or not on PATH", { hint: installHint(argv[0]) });
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
    const kill = (): void => {
      end("SIGKILL");
      // A process that left the group lives on, and may hold our pipes open.
      abandon.abort();
    };
    if (options.group === "probe") return kill();
    end("SIGTERM");
    killTimer = setTimeout(kill, 3000);
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
    // The terminal's Ctrl-C goes to the whole group: the process may end before our own signal handler has run.
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
    // Processes that the program left running in its group (a helper that forked) must not outlive a stop.
    if (ownGroup && stopped.by !== undefined) killGroup(child.pid, "SIGKILL");
    options.groups.delete(child.pid);
  }
}

function listener({ stderr, writeStderr }: RunProgramOptions): ((chunk: Uint8Array) => unknown) | undefined {
  if (typeof stderr !== "function") return stderr === "tee" ? writeStderr : undefined;
  const decoder = new TextDecoder();
  return (chunk) => stderr(decoder.decode(chunk, { stream: true }));
}

function killGroup(pid: number, signal: "SIGTERM" | "SIGKILL"): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // It has ended meanwhile.
  }
}
