/**
 * Runs programs as a user's shell does, to the end or until a signal, with their output: ours, the original, git. Waits until
 * something is so.
 */
import { existsSync, readFileSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";

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

const ROOT = join(import.meta.dir, "..", "..");

/** Milliseconds: what has not happened by then does not happen, on the busiest machine. */
const PATIENCE = 90_000;

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

/** Waits until a server answers. @throws {Error} With the end of its log, if it ends before that or takes too long. */
export async function waitForServer(
  servers: readonly Bun.Subprocess[],
  options: { readonly isUp: () => boolean | Promise<boolean>; readonly log: () => string },
): Promise<void> {
  const stderr = (): string => options.log().slice(-4000);
  const ends = servers.map(async ({ exited }) => {
    const code = await exited;
    // Read when it is needed: after an orderly end the log is gone.
    return {
      code,
      stdout: "",
      get stderr() {
        return stderr();
      },
    };
  });
  await waitUntil(options.isUp, { result: Promise.race(ends), stderr });
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

/** What a program prints. @throws {Error} If it fails, with what it wrote to stderr. */
export async function output(
  argv: readonly string[],
  options: { readonly cwd: string; readonly env: Readonly<Record<string, string | undefined>> },
): Promise<string> {
  const child = Bun.spawn([...argv], { ...options, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0) throw new Error(`${argv.join(" ")} exited with ${code}\n${stderr}`);
  return stdout;
}

/** The argv that runs ours: the compiled executable if it is newer than every source, else Bun on the sources. */
export function ourCommand(): string[] {
  const compiled = join(ROOT, "ko");
  const sources = [join(ROOT, "ko.ts"), ...readdirSync(join(ROOT, "lib")).map((name) => join(ROOT, "lib", name))];
  const newest = Math.max(...sources.map(changedAt));
  return changedAt(compiled) > newest ? [compiled] : [process.execPath, "--no-env-file", join(ROOT, "ko.ts")];
}

/** The environment of both programs: this machine's, without what would steer a build, in UTC. */
export function cleanEnvironment(work: string): Record<string, string> {
  const steering =
    /^(CI$|GITHUB_|KO_|KOCACHE$|KIND_|DOCKER_|REGISTRY_AUTH_FILE$|SOURCE_DATE_EPOCH$|GOOS$|GOARCH$|GOARM$|GOAMD64$|CGO_ENABLED$|TZ$)/;
  const env: Record<string, string> = {};
  for (const [key, value] of Object.entries(process.env)) {
    if (value !== undefined && !steering.test(key)) env[key] = value;
  }
  return { ...env, TZ: "UTC", DOCKER_CONFIG: join(work, "docker"), KO_CONFIG_PATH: join(work, "config") };
}

/** Makes `root` a repository with one commit that has the same hash each time. */
export async function commitTree(root: string, tag?: string): Promise<void> {
  const date = "2024-01-02T03:04:05Z";
  const who = { GIT_AUTHOR_NAME: "t", GIT_AUTHOR_EMAIL: "t@example.com", GIT_COMMITTER_NAME: "t" };
  const env = {
    ...process.env,
    ...who,
    GIT_COMMITTER_EMAIL: "t@example.com",
    GIT_AUTHOR_DATE: date,
    GIT_COMMITTER_DATE: date,
  };
  for (const args of [
    ["init", "-q", "-b", "main"],
    ["add", "-A", "-f"],
    ["commit", "-q", "--no-gpg-sign", "-m", "one"],
    ...(tag === undefined ? [] : [["tag", tag]]),
  ]) {
    await output(["git", ...args], { cwd: root, env });
  }
}

/** The commands that build. */
const BUILDING: ReadonlySet<string | undefined> = new Set(["build", "resolve", "apply", "create"]);

/**
 * Adds `--events` and `--metadata-file` to a command line that builds once, unless it has one of them: then
 * {@link checkRecord} finds both files in `folder`.
 */
export function recorded(args: readonly string[], folder: string): readonly string[] {
  const [command = "", ...rest] = args;
  const own = rest.slice(0, rest.includes("--") ? rest.indexOf("--") : undefined);
  const isOther = own.some((word) => /^(?:--(?:events|metadata-file|watch|help)\b|-[a-zA-Z]*[Wh])/.test(word));
  if (!BUILDING.has(command) || isOther) return args;
  return [command, "--events", join(folder, EVENTS), "--metadata-file", join(folder, METADATA), ...rest];
}

const [EVENTS, METADATA] = ["events.jsonl", "metadata.json"] as const;

/** Validates the files of {@link recorded}, and removes them. @throws {Error} With everything that does not fit its schema. */
export async function checkRecord(folder: string, { code }: Pick<Result, "code">): Promise<void> {
  const [events, metadata] = [join(folder, EVENTS), join(folder, METADATA)];
  const read = (path: string): string => (existsSync(path) ? readFileSync(path, "utf8") : "");
  // A command line that ko does not understand has no record, a process that was killed one without its end.
  const lines = read(events).split("\n").slice(0, -1);
  const values = lines.map((line): unknown => JSON.parse(line));
  const text = read(metadata);
  const faults = [
    ...(await validateAll("events", values)),
    ...(text === "" ? [] : await validateAll("metadata", [JSON.parse(text)])),
  ];
  for (const path of [events, metadata]) rmSync(path, { force: true });
  if (faults.length > 0) throw new Error(`the record of a run that ended with ${code} is wrong:\n${faults.join("\n")}`);
}

/** Validates values against a schema of docs/schemas. @returns a line for each value that does not fit */
export async function validateAll(name: "events" | "metadata", values: readonly unknown[]): Promise<readonly string[]> {
  if (values.length === 0) return [];
  const { Ajv2020 } = await import("ajv/dist/2020.js");
  const document: object = JSON.parse(readFileSync(join(ROOT, "docs", "schemas", `${name}.v1.json`), "utf8"));
  const validate = new Ajv2020({ allErrors: true, strictTypes: false, strictRequired: false }).compile(document);
  return values.flatMap((value) =>
    validate(value) ? [] : [`${JSON.stringify(value)}: ${JSON.stringify(validate.errors)}`],
  );
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

function changedAt(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}
