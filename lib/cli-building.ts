/** What the commands that build have in common: their flags, checked, and the arguments of their parts. */
import type { LazyCache } from "./cache.ts";
import type { BuildOptions, ReportFlags } from "./cli-options.ts";
import type { Invocation } from "./cli-parse.ts";
import { UsageError } from "./errors.ts";
import type { Host } from "./host.ts";
import { isDryRun } from "./kubectl.ts";
import type { ClusterNodes } from "./kubectl-cluster.ts";
import type { Log } from "./log.ts";
import type { Timing } from "./timing.ts";
import type { InputRequest } from "./yaml-inputs.ts";

export type Of<N extends Invocation["command"]> = Extract<Invocation, { readonly command: N }>;

export type ReadingYaml = Of<"resolve" | "apply" | "create">;

export type Building = Of<"build" | "run"> | ReadingYaml;

export type Watching = Exclude<Building, Of<"run">> & { readonly flags: { readonly watch: true } };

export interface ReportedOptions {
  readonly host: Host;
  /** The flags of the report. */
  readonly flags: ReportFlags;
}

/** Everything that the steps of one building command share. */
export interface Run {
  readonly host: Host;
  readonly log: Log;
  readonly timing: Timing;
  /** Whether a person watches a terminal that can rewrite lines. @default false */
  readonly isLive?: boolean;
  readonly cache: LazyCache;
  /** The flags, checked. */
  readonly build: BuildOptions;
  /** Of the cluster that the result goes to. @default it goes to none */
  readonly nodes?: ClusterNodes;
}

/**
 * Checks every flag of a building command, also those that the command may turn out not to need, and whether stdout is open:
 * nothing is pushed for a result that is lost.
 *
 * @throws {UsageError} If a flag is malformed, or flags contradict each other.
 */
export async function checkFlags(invocation: Building, host: Host): Promise<BuildOptions> {
  const { readBuildOptions, refuseCluster } = await import("./cli-options.ts");
  const build = readBuildOptions(invocation.flags, invocation.given);
  if (invocation.command === "build" || invocation.command === "resolve") refuseCluster(build.platforms);
  if (writesArchiveToStdout(build) && (isWatching(invocation) || invocation.command !== "build")) {
    const why = isWatching(invocation)
      ? "Cannot write an archive to stdout with --watch: it would be followed by the next one"
      : `Cannot write an archive to stdout: "ko ${invocation.command}" writes there itself`;
    throw new UsageError(why, { hint: "Name a file: --tarball FILE, --oci-archive FILE" });
  }
  if (invocation.command === "build") checkChoice(invocation);
  if (invocation.command === "build" || invocation.command === "resolve") await host.out("");
  if (invocation.command === "build" || invocation.command === "run") return build;
  if (invocation.command !== "resolve") checkLogs(invocation);
  if (invocation.command === "apply") checkSwap(invocation);
  const { checkRequest } = await import("./yaml-inputs.ts");
  checkRequest(requestOf(invocation));
  const { selector } = invocation.flags;
  if (selector !== "") (await import("./yaml-selector.ts")).parseSelector(selector);
  return build;
}

/** @throws {UsageError} If `--all` or `--changed-since` contradicts other words. */
function checkChoice(invocation: Of<"build">): void {
  const { flags, given, positionals } = invocation;
  const [first] = positionals;
  if (flags.all && first !== undefined) {
    throw new UsageError(`Cannot use --all with "${first}": it stands for all programs`, {
      hint: "Leave one of them out.",
    });
  }
  if (given.has("changed-since") && flags["changed-since"] === "") {
    throw new UsageError('Cannot use --changed-since "": wanted a git revision', {
      hint: "For example: --changed-since=origin/main",
    });
  }
  if (!isWatching(invocation) || (!flags.all && !given.has("changed-since"))) return;
  const flag = flags.all ? "--all" : "--changed-since";
  throw new UsageError(`Cannot use ${flag} with --watch: a watch builds the changed programs anyway`, {
    hint: "Leave one of them out.",
  });
}

/** @throws {UsageError} If logs are wanted of a run that ends, or of one that starts nothing. */
function checkLogs({ afterDashes, command, flags }: Of<"apply" | "create">): void {
  if (!flags.logs) return;
  if (!flags.watch) {
    throw new UsageError(`Cannot use --logs without --watch: "ko ${command}" ends when kubectl has ended`, {
      hint: `Type: ko ${command} -W --logs`,
    });
  }
  if (isDryRun(afterDashes)) {
    throw new UsageError("Cannot use --logs with --dry-run: nothing is started", { hint: "Leave one of them out." });
  }
}

function checkSwap({ flags }: Of<"apply">): void {
  if (flags["swap-context"] !== "" && !flags.swap) {
    throw new UsageError("Cannot use --swap-context without --swap", { hint: "Add --swap, or leave it out." });
  }
  if (flags.swap && !flags.watch) {
    throw new UsageError("Cannot use --swap without --watch: it replaces the program again and again", {
      hint: "Add -W: ko apply -W --swap",
    });
  }
}

export function writesArchiveToStdout({ publish }: BuildOptions): boolean {
  return publish.files.some((place) => place.kind !== "layout" && place.file === "-");
}

export function isWatching(invocation: Building): invocation is Watching {
  return invocation.command !== "run" && invocation.flags.watch;
}

export function argsOf({ positionals }: Of<"build">): readonly string[] {
  return positionals.length > 0 ? positionals : ["."];
}

export function requestOf({ flags }: ReadingYaml): InputRequest {
  const { filename, recursive, kustomize } = flags;
  return { files: filename, recursive, kustomize: kustomize || undefined };
}

/** The arguments of kubectl that say where objects are. */
export async function placeOf(invocation: ReadingYaml): Promise<readonly string[]> {
  if (invocation.command === "resolve") return [];
  const [{ kubectlArguments }, { placeArguments }] = await Promise.all([
    import("./kubectl.ts"),
    import("./kubectl-forward.ts"),
  ]);
  return placeArguments([...kubectlArguments(invocation.flags, invocation.given), ...invocation.afterDashes]);
}

/** Does work before kubectl is run, and looks beside it whether kubectl will find its cluster, with nodes for the images. */
export async function besideCluster<T>(
  { afterDashes, flags, given }: Of<"apply" | "create" | "run">,
  { build, host, log }: Pick<Run, "build" | "host" | "log">,
  work: (parts: Required<Pick<Run, "host" | "nodes">>) => Promise<T>,
): Promise<T> {
  const { findKubectl, kubectlArguments } = await import("./kubectl.ts");
  findKubectl(host);
  const { whileLooking } = await import("./kubectl-cluster.ts");
  const words = [...kubectlArguments(flags, given), ...afterDashes];
  const { asksNodes } = await import("./cli-options.ts");
  return whileLooking(host, { log, words, asksNodes: asksNodes(build, host.env) }, work);
}
