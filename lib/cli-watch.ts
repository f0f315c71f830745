/** `--watch`: the rounds of a command that builds. */
import {
  argsOf,
  besideCluster,
  checkFlags,
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
import type { Log } from "./log.ts";
import type { RolloutTeller, RolloutTellerOptions } from "./rollout-watch.ts";

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
  const words = [...kubectlArguments(own, invocation.given), ...invocation.afterDashes];
  const wait = (await import("./cli-options.ts")).readWait(own.wait);
  const isSilent = invocation.given.has("wait") && wait === undefined;
  const { WatchedCluster } = await import("./rollout-proxy.ts");
  await using cluster = new WatchedCluster({ host, words });
  await using teller = isSilent ? undefined : await openTeller({ host, cluster, limit: wait ?? TELLING_MS });
  await using logs = own.logs ? await openFollower({ host, cluster }) : undefined;
  return await besideCluster(invocation, { build, host, log }, (watched) => {
    const { host: watchedHost, nodes } = watched;
    const handOver = createFeeder(watchedHost, { ...invocation, log, teller, logs });
    return watchAndRun(new YamlJob({ ...yaml, nodes, verb, handOver, logs }), { ...options, host: watchedHost });
  });
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
