/**
 * Runs the command that a command line asks for.
 *
 * All flags are checked before any input is read. The modules of a command are loaded when it runs.
 */
import type { LazyCache } from "./cache.ts";
import type { BuildOptions, ReportFlags } from "./cli-options.ts";
import { type Invocation, logLevelOf, parseCommandLine } from "./cli-parse.ts";
import { exitCodeOf, KoError, UsageError } from "./errors.ts";
import type { RecordOptions, RunRecord } from "./events-record.ts";
import type { Host } from "./host.ts";
import { styleOf } from "./log-style.ts";
import { createLog, type Log } from "./log.ts";
import type { Pipeline, PublishedProgram } from "./pipeline.ts";
import type { RolloutTeller, RolloutTellerOptions } from "./rollout-watch.ts";
import type { Timing } from "./timing.ts";
import type { InputRequest } from "./yaml-inputs.ts";

type Of<N extends Invocation["command"]> = Extract<Invocation, { readonly command: N }>;

type ReadingYaml = Of<"resolve" | "apply" | "create">;

type Building = Of<"build" | "run"> | ReadingYaml;

type Watching = Exclude<Building, Of<"run">> & { readonly flags: { readonly watch: true } };

interface ReportedOptions {
  readonly host: Host;
  /** The flags of the report. */
  readonly flags: ReportFlags;
}

/** Everything that the steps of one building command share. */
interface Run {
  readonly host: Host;
  readonly log: Log;
  readonly timing: Timing;
  readonly cache: LazyCache;
  /** The flags, checked. */
  readonly build: BuildOptions;
}

/**
 * @param argv the words after the program's name
 * @returns the exit code: 0, or the exit code of kubectl if it ran
 * @throws {KoError} For every failure that a user can cause.
 */
export async function runCommandLine(argv: readonly string[], host: Host): Promise<number> {
  const [hidden, ...words] = argv;
  if (hidden === "__complete") {
    const { complete, formatCompletion } = await import("./cli-completion.ts");
    return print(host, formatCompletion(await complete(words, host)));
  }
  const auth = findAuth(argv);
  if (auth?.isOwn === true) return (await import("./cli-auth.ts")).runAuth(auth.words, host);
  const invocation = parseCommandLine(auth?.words ?? argv);
  if (invocation.command === "help") {
    const { formatTopic } = await import("./cli-help.ts");
    return print(host, formatTopic(invocation.topic, host.stdoutColumns));
  }
  const log = createLog(logLevelOf(invocation.flags), (text) => host.err(text), { style: styleOf(host) });
  switch (invocation.command) {
    case "build":
    case "resolve":
    case "apply":
    case "create":
    case "run": {
      const { readReportFlags } = await import("./cli-options.ts");
      const flags = readReportFlags(invocation.flags);
      return isWatching(invocation) ? watch(invocation, { host, log, flags }) : runOnce(invocation, { host, flags });
    }
    case "delete": {
      const { runKubectl } = await import("./kubectl.ts");
      refuseFile(invocation.positionals);
      return runKubectl(host, ["delete", ...invocation.positionals], { log, stdin: "inherit" });
    }
    case "config": {
      const { runConfig } = await import("./settings-text.ts");
      const { flags, given, positionals: args } = invocation;
      return print(host, await runConfig({ flags, given, args }, { host, log }));
    }
    case "init": {
      const { initConfig } = await import("./settings-init.ts");
      await initConfig({ host, log, isAgreed: invocation.flags.yes });
      return 0;
    }
    case "check":
      return check(invocation, { host, log });
    case "login": {
      const { login } = await import("./registry-login.ts");
      const [server = ""] = invocation.positionals;
      await login(server, { context: { host, log }, flags: invocation.flags });
      return 0;
    }
    case "logout": {
      const { logout } = await import("./registry-login.ts");
      const [server = ""] = invocation.positionals;
      await logout(server, { host, log });
      return 0;
    }
    case "cache": {
      const { runCacheCommand } = await import("./cache-clean.ts");
      return print(host, runCacheCommand(invocation.positionals, { host, log }));
    }
    case "doctor":
      return doctor(invocation, { host, log });
    case "completion": {
      const { completionScript } = await import("./cli-completion.ts");
      return print(host, completionScript(invocation.positionals[0]));
    }
    case "version": {
      const { koVersion } = await import("./version.ts");
      return print(host, `${await koVersion(host)}\n`);
    }
  }
}

/** @throws {UsageError} If the only word is the name of a file or folder, which kubectl takes for that of an object. */
function refuseFile(words: readonly string[]): void {
  const [word = "", another] = words;
  if (another !== undefined || !/\/$|\.(?:ya?ml|json)$/.test(word)) return;
  throw new UsageError(`Cannot delete "${word}": that is not the name of an object`, {
    hint: `If it names YAML: ko delete -f ${word}`,
  });
}

/**
 * The words after `ko auth`, a hidden command of the original, with the flags before it. `ko auth login` and `logout` are
 * `ko login` and `logout`; the others are its own.
 */
function findAuth(argv: readonly string[]): { readonly words: readonly string[]; readonly isOwn: boolean } | undefined {
  const [first, second, ...rest] = argv;
  if (first === "help" && second === "auth") return { words: [...rest, "--help"], isOwn: true };
  const at = argv.findIndex((word) => !/^-(?:[vqh]+|-(?:verbose|quiet|help)(?:=.*)?)$/.test(word));
  if (argv[at] !== "auth") return undefined;
  const words = [...argv.slice(0, at), ...argv.slice(at + 1)];
  const name = words.find((word) => !word.startsWith("-"));
  return { words, isOwn: name !== "login" && name !== "logout" };
}

async function check({ flags, positionals }: Of<"check">, context: Pick<Run, "host" | "log">): Promise<number> {
  const [{ runCheck }, { chooseNaming }] = await Promise.all([import("./check.ts"), import("./cli-options.ts")]);
  const { naming, warnings } = chooseNaming(flags);
  for (const warning of warnings) context.log.warn(warning);
  const { filename: files, json, local, platform: platforms, recursive, selector } = flags;
  return runCheck({ files, json, local, naming, platforms, recursive, selector, args: positionals }, context);
}

async function print(host: Host, text: string): Promise<number> {
  await host.out(text);
  return 0;
}

/** `doctor`: prints what this machine has. */
async function doctor({ flags, given }: Of<"doctor">, { host, log }: Pick<Run, "host" | "log">): Promise<number> {
  const [{ kubectlArguments }, { runDoctor }] = await Promise.all([import("./kubectl.ts"), import("./doctor.ts")]);
  const { json, local, "insecure-registry": insecureRegistry } = flags;
  const kubectl = kubectlArguments(flags, given);
  const { exitCode, text } = await runDoctor(host, { log, kubectl, local, insecureRegistry, json });
  await host.out(text);
  return exitCode;
}

/**
 * Checks every flag of a building command, also those that the command may turn out not to need, and whether stdout is open:
 * nothing is pushed for a result that is lost.
 *
 * @throws {UsageError} If a flag is malformed, or flags contradict each other.
 */
async function checkFlags(invocation: Building, host: Host): Promise<BuildOptions> {
  const { readBuildOptions } = await import("./cli-options.ts");
  const build = readBuildOptions(invocation.flags, invocation.given);
  if (writesArchiveToStdout(build) && (isWatching(invocation) || invocation.command !== "build")) {
    const why = isWatching(invocation)
      ? "Cannot write an archive to stdout with --watch: it would be followed by the next one"
      : `Cannot write an archive to stdout: "ko ${invocation.command}" writes there itself`;
    throw new UsageError(why, { hint: "Name a file: --tarball FILE, --oci-archive FILE" });
  }
  if (invocation.command === "build" || invocation.command === "resolve") await host.out("");
  if (invocation.command === "build" || invocation.command === "run") return build;
  const { checkRequest } = await import("./yaml-inputs.ts");
  checkRequest(requestOf(invocation));
  const { selector } = invocation.flags;
  if (selector !== "") (await import("./yaml-selector.ts")).parseSelector(selector);
  return build;
}

function writesArchiveToStdout({ publish }: BuildOptions): boolean {
  return publish.files.some((place) => place.kind !== "layout" && place.file === "-");
}

function isWatching(invocation: Building): invocation is Watching {
  return invocation.command !== "run" && invocation.flags.watch;
}

/** Runs a building command once; `--timing` is reported at its end. */
async function runOnce(invocation: Building, { flags, host }: ReportedOptions): Promise<number> {
  const [{ nameCommand, withReport }, { withTiming }] = await Promise.all([
    import("./cli-report.ts"),
    import("./timing.ts"),
  ]);
  const { command } = invocation;
  return withReport(
    async (report) => {
      const build = await checkFlags(invocation, host);
      return withTiming((timing) => runReported(invocation, { ...report, timing: report.timing(timing), build }), {
        to: build.timing,
        host: report.host,
        command: await nameCommand(invocation, build.timing),
      });
    },
    { host, command, level: logLevelOf(invocation.flags), flags },
  );
}

async function runReported(invocation: Building, options: Omit<Run, "cache">): Promise<number> {
  const { host, log } = options;
  const { LazyCache } = await import("./cache.ts");
  await using cache = new LazyCache(host, log);
  const run = { ...options, cache };
  switch (invocation.command) {
    case "build":
      return await buildPrograms(invocation, run);
    case "resolve":
      return await print(host, await resolveYaml(invocation, run));
    case "apply":
    case "create":
      return await feedKubectl(invocation, run);
    case "run":
      return await runProgram(invocation, run);
  }
}

/** `build`: publishes programs and prints their references. */
async function buildPrograms(invocation: Of<"build">, run: Run): Promise<number> {
  const { host, log, build } = run;
  await using pipeline = await openPipeline(run);
  const { choosePrograms } = await import("./go-programs.ts");
  const { published } = await pipeline.publish(argsOf(invocation), (found) => ({ programs: choosePrograms(found) }));
  const text = published.map(({ reference }) => `${reference}\n`).join("");
  if (build.debug !== undefined) (await import("./resolve-debug.ts")).logPrograms(published, log);
  // stdout holds the archive: the references go to stderr.
  if (writesArchiveToStdout(build)) log.info(text.trimEnd());
  else await host.out(text);
  return 0;
}

/** `run`: publishes one program and runs it in a new Pod. */
async function runProgram(invocation: Of<"run">, run: Run): Promise<number> {
  const { host, log, timing } = run;
  const only = await besideCluster(invocation, run, (watched) => publishOne(invocation, { ...run, host: watched }));
  const [{ clusterArguments, kubectlArguments, podName, runPod }, { whileStarting }] = await Promise.all([
    import("./kubectl.ts"),
    import("./rollout-run.ts"),
  ]);
  const { afterDashes } = invocation;
  const kubectl = kubectlArguments(invocation.flags, invocation.given);
  const name = podName(only.program.importPath, crypto.randomUUID().slice(0, 5));
  if (only.debug !== undefined) (await import("./resolve-debug.ts")).logPod(name, only, { afterDashes, kubectl, log });
  const { reference } = only;
  const flags = clusterArguments([...kubectl, ...afterDashes]);
  return await timing.time("kubectl", "run", () =>
    whileStarting(host, { name, flags, log }, (watched) =>
      runPod(watched, { name, reference, afterDashes, kubectl, log }),
    ),
  );
}

/** Publishes the only program that the argument of `ko run` names. */
async function publishOne({ positionals }: Of<"run">, run: Run): Promise<PublishedProgram> {
  await using pipeline = await openPipeline(run);
  const { choosePrograms } = await import("./go-programs.ts");
  const { published } = await pipeline.publish(positionals, (found) => {
    const programs = choosePrograms(found);
    const [program, another] = programs;
    if (program !== undefined && another === undefined) return { programs };
    throw new UsageError(`Cannot run "${positionals[0]}": it names ${programs.length} programs, one is wanted`, {
      hint: `Name one of them: ko run ${program?.importPath ?? "./cmd/app"}`,
    });
  });
  const [only] = published;
  if (only === undefined) throw new RangeError("nothing was published");
  return only;
}

/** `apply` and `create`: resolves the YAML, then runs one kubectl with all of it on stdin. */
async function feedKubectl(invocation: Of<"apply" | "create">, run: Run): Promise<number> {
  const { host, log, timing } = run;
  const { filename, selector, wait } = invocation.flags;
  const { readWait } = await import("./cli-options.ts");
  const limit = readWait(wait);
  const text = await besideCluster(invocation, run, (watched) => resolveYaml(invocation, { ...run, host: watched }));
  if (selector !== "" && text === "") {
    throw new KoError(`No object in ${filename.join(", ") || "the kustomization"} has the labels ${selector}`);
  }
  const { kubectlArguments, runKubectl } = await import("./kubectl.ts");
  const place = kubectlArguments(invocation.flags, invocation.given);
  const args = [invocation.command, "-f", "-", ...place, ...withoutEmpty(invocation.afterDashes)] as const;
  if (limit !== undefined) {
    const { applyAndWait } = await import("./rollout-apply.ts");
    return await applyAndWait(host, { log, timing, args, text, limit });
  }
  const stdin = new TextEncoder().encode(text);
  return timing.time("kubectl", invocation.command, () => runKubectl(host, args, { log, stdin }));
}

/** Drops empty words, except where one can be the value of the flag before it. */
function withoutEmpty(words: readonly string[]): readonly string[] {
  return words.filter((word, i) => word !== "" || /^-[^=]*$/.test(words[i - 1] ?? ""));
}

/** Returns the YAML that `-f` and `-k` name, with image references; throws before anything is written. */
async function resolveYaml(invocation: ReadingYaml, run: Run): Promise<string> {
  const { build, host, log, timing, cache } = run;
  const [{ readInputs }, { resolveInputs }, { redactIfUrl }] = await Promise.all([
    import("./yaml-inputs.ts"),
    import("./resolve.ts"),
    import("./url.ts"),
  ]);
  const request = requestOf(invocation);
  const { files, kustomize } = request;
  const what = [...files, ...(kustomize === undefined ? [] : [kustomize])].map(redactIfUrl).join(" ");
  const inputs = await timing.time("read", what, () => readInputs(request, { host, log, signal: host.signal }));
  return resolveInputs(inputs, {
    log,
    place: build.debug === undefined ? undefined : await placeOf(invocation),
    records: cache.get(),
    signal: host.signal,
    selector: invocation.flags.selector,
    strict: invocation.flags.strict,
    openPipeline: () => openPipeline(run),
  });
}

/** The arguments of kubectl that say where objects are. */
async function placeOf(invocation: ReadingYaml): Promise<readonly string[]> {
  if (invocation.command === "resolve") return [];
  const [{ kubectlArguments }, { placeArguments }] = await Promise.all([
    import("./kubectl.ts"),
    import("./kubectl-forward.ts"),
  ]);
  return placeArguments([...kubectlArguments(invocation.flags, invocation.given), ...invocation.afterDashes]);
}

/** Opens the pipeline of a building command. The configuration is read here: YAML without references needs none. */
async function openPipeline({ host, log, timing, cache, build }: Run): Promise<Pipeline> {
  const [{ loadConfig }, { Pipeline: Opened }] = await Promise.all([import("./config.ts"), import("./pipeline.ts")]);
  for (const warning of build.warnings) log.warn(warning);
  return Opened.open({ host, log, timing, cache, config: await loadConfig(host), build });
}

/** `--watch`: runs a command again after each change, until a signal ends ko. That is how a watch ends: no error. */
async function watch(
  invocation: Watching,
  { flags, host, log: unrecorded }: ReportedOptions & { readonly log: Log },
): Promise<number> {
  checkWatchedReport(flags);
  const { isRecorded } = await import("./cli-report.ts");
  const { recordingLog } = await import("./events-lines.ts");
  using record = isRecorded(flags, host)
    ? await openRecord({ host, command: invocation.command, files: flags })
    : undefined;
  const log = record === undefined ? unrecorded : recordingLog(unrecorded, { add: record.add, cwd: host.cwd });
  try {
    return await runRounds(invocation, { flags, host, log, record });
  } catch (error) {
    if (!host.signal.aborted) throw error;
    log.info("stopped");
    return exitCodeOf(host.signal.reason);
  }
}

async function runRounds(
  invocation: Watching,
  { flags, host, log, record }: ReportedOptions & { readonly log: Log; readonly record: RunRecord | undefined },
): Promise<never> {
  const build = await checkFlags(invocation, host).catch(async (error: unknown) => {
    record?.begin();
    await record?.fail(error);
    throw error;
  });
  const { watchAndRun } = await import("./watch.ts");
  for (const warning of build.warnings) log.warn(warning);
  const { progress } = flags;
  const level = logLevelOf(invocation.flags);
  const shown = await (await import("./cli-report.ts")).nameCommand(invocation, build.timing);
  const options = { host, level, progress, timing: build.timing, record, command: shown };
  if (invocation.command === "build") {
    const { BuildJob } = await import("./watch-programs.ts");
    return await watchAndRun(new BuildJob({ build, args: argsOf(invocation) }), options);
  }
  const { createFeeder, createPrinter, YamlJob } = await import("./watch-yaml.ts");
  const { command, flags: own } = invocation;
  const yaml = {
    build,
    request: requestOf(invocation),
    place: build.debug === undefined ? undefined : await placeOf(invocation),
    selector: own.selector,
    strict: own.strict,
  };
  if (command === "resolve") {
    return await watchAndRun(new YamlJob({ ...yaml, verb: "printed", handOver: createPrinter() }), options);
  }
  const verb = command === "apply" ? "applied" : "created";
  const { kubectlArguments } = await import("./kubectl.ts");
  const words = [...kubectlArguments(own, invocation.given), ...invocation.afterDashes];
  const limit = (await import("./cli-options.ts")).readWait(own.wait);
  await using teller = limit === undefined ? undefined : await openTeller({ host, words, limit });
  return await besideCluster(invocation, { host, log }, (watched) => {
    const handOver = createFeeder(watched, { ...invocation, log, teller });
    return watchAndRun(new YamlJob({ ...yaml, verb, handOver }), { ...options, host: watched });
  });
}

async function openTeller(options: RolloutTellerOptions): Promise<RolloutTeller> {
  const { RolloutTeller: Teller } = await import("./rollout-watch.ts");
  return new Teller(options);
}

/** Does work before kubectl is run, and looks beside it whether kubectl will find its cluster. */
async function besideCluster<T>(
  { afterDashes, flags, given }: Of<"apply" | "create" | "run">,
  { host, log }: Pick<Run, "host" | "log">,
  work: (host: Host) => Promise<T>,
): Promise<T> {
  const { findKubectl, kubectlArguments } = await import("./kubectl.ts");
  findKubectl(host);
  const { whileLooking } = await import("./kubectl-cluster.ts");
  return whileLooking(host, { log, words: [...kubectlArguments(flags, given), ...afterDashes] }, work);
}

async function openRecord(options: RecordOptions): Promise<RunRecord> {
  const { RunRecord: Opened } = await import("./events-record.ts");
  return Opened.open(options);
}

/** @throws {UsageError} If the rounds of a watch cannot be reported in that way. */
function checkWatchedReport({ events, isGithubOutput }: ReportFlags): void {
  if (events === "-") {
    throw new UsageError("Cannot write --events to stderr with --watch: the rounds are shown there", {
      hint: "Name a file or a pipe: --events FILE",
    });
  }
  if (isGithubOutput) {
    throw new UsageError("Cannot use --github-output with --watch: a step of GitHub Actions ends", {
      hint: "Leave one of them out. --metadata-file is written again in each round.",
    });
  }
}

function argsOf({ positionals }: Of<"build">): readonly string[] {
  return positionals.length > 0 ? positionals : ["."];
}

function requestOf({ flags }: ReadingYaml): InputRequest {
  const { filename, recursive, kustomize } = flags;
  return { files: filename, recursive, kustomize: kustomize || undefined };
}
