/** `--watch`: the rounds of a command that builds. */
import {
  argsOf,
  besideCluster,
  checkFlags,
  type Of,
  placeOf,
  type ReportedOptions,
  requestOf,
  type Watching,
} from "./cli-building.ts";
import type { ReportFlags } from "./cli-options.ts";
import { logLevelOf } from "./cli-parse.ts";
import { exitCodeOf, UsageError } from "./errors.ts";
import type { RecordOptions, RunRecord } from "./events-record.ts";
import type { LogFollower, LogFollowerOptions } from "./follow.ts";
import type { Host } from "./host.ts";
import type { Context } from "./kubectl-cluster.ts";
import type { Log } from "./log.ts";
import type { SwapperOptions } from "./rollout-swapper.ts";
import type { RolloutTeller, RolloutTellerOptions } from "./rollout-watch.ts";
import type { HandOver } from "./watch-yaml.ts";

/** Milliseconds for the rollout of a round, if `--wait` names no other time: Kubernetes gives a Deployment as long. */
const TELLING_MS = 10 * 60_000;

/** `--watch`: runs a command again after each change, until a signal ends ko. That is how a watch ends: no error. */
export async function watch(
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
  const given = [...kubectlArguments(own, invocation.given), ...invocation.afterDashes];
  const context =
    invocation.command === "apply" ? await findSwapContext(invocation, { host, words: given }) : undefined;
  const words = context === undefined ? given : pinContext(given, context);
  const wait = (await import("./cli-options.ts")).readWait(own.wait);
  const isSilent = invocation.given.has("wait") && wait === undefined;
  const { WatchedCluster } = await import("./rollout-proxy.ts");
  await using cluster = new WatchedCluster({ host, words });
  await using teller = isSilent ? undefined : await openTeller({ host, cluster, limit: wait ?? TELLING_MS });
  await using logs = own.logs ? await openFollower({ host, cluster }) : undefined;
  return await besideCluster(invocation, { build, host, log }, (watched) => {
    const { host: watchedHost, nodes } = watched;
    const feed = createFeeder(watchedHost, { command, words, log, teller, logs });
    const run = (handOver: HandOver): Promise<never> =>
      watchAndRun(new YamlJob({ ...yaml, nodes, verb, handOver, logs }), { ...options, host: watchedHost });
    if (context === undefined) return run(feed);
    return swapping({ host: watchedHost, log, words, context, cluster, feed }, run);
  });
}

/** Finds the context whose Pods `--swap` may change; undefined without that flag. @throws {UsageError} If there is none. */
async function findSwapContext(
  { flags }: Of<"apply">,
  { host, words }: { readonly host: Host; readonly words: readonly string[] },
): Promise<Context | undefined> {
  if (!flags.swap) return undefined;
  const [{ clusterArguments }, { readContext }, { checkSwapContext }] = await Promise.all([
    import("./kubectl.ts"),
    import("./kubectl-cluster.ts"),
    import("./rollout-swap-plan.ts"),
  ]);
  const context = await readContext(host, clusterArguments(words));
  checkSwapContext(context, flags["swap-context"]);
  return context;
}

/** Names the context, so that a change of the current one has no effect. */
function pinContext(words: readonly string[], { name }: Context): readonly string[] {
  const isNamed = name === "" || words.some((word) => /^--context(?:=|$)/.test(word));
  return isNamed ? words : [`--context=${name}`, ...words];
}

/** Runs the rounds with a Swapper. Its disposal applies the documents whose programs were swapped. */
async function swapping(options: SwapperOptions, run: (handOver: HandOver) => Promise<never>): Promise<never> {
  const { Swapper } = await import("./rollout-swapper.ts");
  await using swapper = new Swapper(options);
  return await run((changes, context) => swapper.handOver(changes, context));
}

async function openTeller(options: RolloutTellerOptions): Promise<RolloutTeller> {
  const { RolloutTeller: Teller } = await import("./rollout-watch.ts");
  return new Teller(options);
}

async function openFollower(options: LogFollowerOptions): Promise<LogFollower> {
  const { LogFollower: Follower } = await import("./follow.ts");
  return new Follower(options);
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
