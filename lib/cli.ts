/**
 * Runs the command that a command line asks for. Each command's modules are loaded when it runs.
 */
import type { LazyCache } from "./cache.ts";
import { type Invocation, logLevelOf, parseCommandLine } from "./cli-parse.ts";
import { UsageError } from "./errors.ts";
import type { Host } from "./host.ts";
import { createLog, type Log } from "./log.ts";
import type { Session } from "./pipeline.ts";
import type { Timing } from "./timing.ts";
import type { JobOptions } from "./watch-programs.ts";
import type { WatchJob } from "./watch.ts";

type Of<N extends Invocation["command"]> = Extract<Invocation, { readonly command: N }>;

/**
 * @param argv the words after the program's name
 * @returns the exit code: 0, or that of kubectl where it ran
 * @throws {KoError} For everything that a user can cause.
 */
export async function runCommandLine(argv: readonly string[], host: Host): Promise<number> {
  const [hidden, ...words] = argv;
  if (hidden === "__complete") {
    const { complete, formatCompletion } = await import("./cli-completion.ts");
    return print(host, formatCompletion(await complete(words, host)));
  }
  const invocation = parseCommandLine(argv);
  if (invocation.command === "help") return print(host, invocation.text);
  const log = createLog(logLevelOf(invocation.flags), (text) => host.err(text));
  switch (invocation.command) {
    case "version": {
      const { koVersion } = await import("./version.ts");
      return print(host, `${await koVersion(host)}\n`);
    }
    case "build":
      if (invocation.flags.watch) return watchPrograms(invocation, { host, log });
      return timed(invocation, { host, log }, (world) => buildPrograms(invocation, world));
    case "resolve":
      if (invocation.flags.watch) return watchYaml(invocation, { host, log });
      return timed(invocation, { host, log }, async (world) => print(host, await resolveYaml(invocation, world)));
    case "apply":
    case "create":
      if (invocation.flags.watch) return watchYaml(invocation, { host, log });
      return timed(invocation, { host, log }, (world) => feedKubectl(invocation, world));
    case "delete": {
      const { runKubectl } = await import("./kubectl.ts");
      return runKubectl(host, ["delete", ...invocation.positionals], { log, stdin: "inherit" });
    }
    case "run":
      return timed(invocation, { host, log }, (world) => runProgram(invocation, world));
    case "cache": {
      const { runCacheCommand } = await import("./cache-clean.ts");
      return print(host, runCacheCommand(invocation.positionals, { host, log }));
    }
    case "completion": {
      const { completionScript } = await import("./cli-completion.ts");
      return print(host, completionScript(invocation.positionals[0]));
    }
  }
}

type Building = Of<"build" | "resolve" | "apply" | "create" | "run">;

function writesArchiveToStdout({ flags }: Building): boolean {
  return flags.tarball === "-" || flags["oci-archive"] === "-";
}

interface World {
  readonly host: Host;
  readonly log: Log;
  readonly timing: Timing;
  readonly cache: LazyCache;
}

/** Runs a command, and tells where its time went, if that was asked for. */
async function timed(
  { flags }: Building,
  { host, log }: Pick<World, "host" | "log">,
  work: (world: World) => Promise<number>,
): Promise<number> {
  const [{ readTimingOutput }, { withTiming }, { LazyCache }] = await Promise.all([
    import("./cli-options.ts"),
    import("./timing.ts"),
    import("./cache.ts"),
  ]);
  const run = async (timing: Timing): Promise<number> => {
    await using cache = new LazyCache(host, log);
    return await work({ host, log, timing, cache });
  };
  return withTiming(run, { to: readTimingOutput(flags), host });
}

async function buildPrograms(invocation: Of<"build">, world: World): Promise<number> {
  const { host, log } = world;
  await using session = await startSession(invocation, world);
  const args = invocation.positionals.length > 0 ? invocation.positionals : ["."];
  const { choosePrograms } = await import("./go-programs.ts");
  const { published } = await session.publish(args, (found) => ({ programs: choosePrograms(found) }));
  const text = published.map(({ reference }) => `${reference}\n`).join("");
  // An archive on stdout leaves no room for references there.
  if (writesArchiveToStdout(invocation)) log.info(text.trimEnd());
  else await host.out(text);
  return 0;
}

async function print(host: Host, text: string): Promise<number> {
  await host.out(text);
  return 0;
}

/** The session of a building command; its flags and the configuration are checked by then. */
async function startSession(invocation: Building, { host, log, timing, cache }: World): Promise<Session> {
  const { flags, given } = invocation;
  const [{ readBuildOptions }, { loadConfig }, { openSession }] = await Promise.all([
    import("./cli-options.ts"),
    import("./config.ts"),
    import("./pipeline.ts"),
  ]);
  const options = readBuildOptions(flags, given);
  if (invocation.command !== "build" && writesArchiveToStdout(invocation)) {
    throw new UsageError(`Cannot write an archive to stdout: "ko ${invocation.command}" writes there itself`, {
      hint: "Name a file: --tarball FILE, --oci-archive FILE",
    });
  }
  for (const warning of options.warnings) log.warn(warning);
  return openSession({ host, log, timing, cache, config: await loadConfig(host), build: options });
}

/** The YAML that `-f` and `-k` name, with image references; nothing is written anywhere unless all of it succeeded. */
async function resolveYaml(invocation: Of<"resolve" | "apply" | "create">, world: World): Promise<string> {
  const { host, log, timing } = world;
  const { flags } = invocation;
  const [{ readInputs }, { resolveInputs }] = await Promise.all([import("./yaml-inputs.ts"), import("./resolve.ts")]);
  const kustomize = invocation.given.has("kustomize") ? flags.kustomize : undefined;
  const inputs = await timing.time("read", [...flags.filename, kustomize ?? ""].join(" ").trim(), () =>
    readInputs({ files: flags.filename, recursive: flags.recursive, kustomize }, { host, log, signal: host.signal }),
  );
  const { cachedReferences } = await import("./yaml-references.ts");
  const cache = world.cache.get();
  return resolveInputs(inputs, {
    log,
    memory: cache && cachedReferences(cache),
    selector: flags.selector,
    strict: flags.strict,
    openSession: () => startSession(invocation, world),
  });
}

/** `apply` and `create`: one kubectl, started when its input is complete. */
async function feedKubectl(invocation: Of<"apply" | "create">, world: World): Promise<number> {
  const { host, log, timing } = world;
  const { findKubectl, kubectlArguments, runKubectl } = await import("./kubectl.ts");
  findKubectl(host);
  const text = await resolveYaml(invocation, world);
  const args = [invocation.command, "-f", "-", ...kubectlArguments(invocation.flags, invocation.given)];
  const stdin = new TextEncoder().encode(text);
  return timing.time("kubectl", invocation.command, () =>
    runKubectl(host, [...args, ...invocation.afterDashes], { log, stdin }),
  );
}

/** `build -W`: prints references whenever they change. */
async function watchPrograms(invocation: Of<"build">, { host, log }: Pick<World, "host" | "log">): Promise<number> {
  const [{ BuildJob }, options] = await Promise.all([import("./watch-programs.ts"), startWatch(invocation, log)]);
  const args = invocation.positionals.length > 0 ? invocation.positionals : ["."];
  const job = new BuildJob({ ...options, args });
  return options.run(job, host);
}

/** `resolve -W`, `apply -W`, `create -W`: hands documents on whenever they change. */
async function watchYaml(
  invocation: Of<"resolve" | "apply" | "create">,
  { host, log }: Pick<World, "host" | "log">,
): Promise<number> {
  const { flags, given, command } = invocation;
  const [{ YamlJob }, { checkRequest }, { parseSelector }, options] = await Promise.all([
    import("./watch-programs.ts"),
    import("./yaml-inputs.ts"),
    import("./yaml-selector.ts"),
    startWatch(invocation, log),
  ]);
  const request = {
    files: flags.filename,
    recursive: flags.recursive,
    kustomize: given.has("kustomize") ? flags.kustomize : undefined,
  };
  // What no change of a file can mend is refused at once.
  checkRequest(request);
  if (flags.selector !== "") parseSelector(flags.selector);
  const { createPrinter, createFeeder } = await import("./watch-yaml.ts");
  const handOver =
    invocation.command === "resolve"
      ? createPrinter()
      : createFeeder(host, { ...invocation, command: invocation.command, log });
  const verb = command === "resolve" ? "printed" : command === "apply" ? "applied" : "created";
  const job = new YamlJob({ ...options, request, selector: flags.selector, strict: flags.strict, verb, handOver });
  return options.run(job, host);
}

type Watching = Of<"build" | "resolve" | "apply" | "create">;

/** What all watching commands share. */
async function startWatch(
  invocation: Watching,
  log: Log,
): Promise<JobOptions & { readonly run: (job: WatchJob, host: Host) => Promise<number> }> {
  const { flags, given } = invocation;
  const [{ readBuildOptions }, { loadConfig }, { watchAndRun }] = await Promise.all([
    import("./cli-options.ts"),
    import("./config.ts"),
    import("./watch.ts"),
  ]);
  if (writesArchiveToStdout(invocation)) {
    throw new UsageError("Cannot write an archive to stdout with --watch: it would be followed by the next one", {
      hint: "Name a file: --tarball FILE, --oci-archive FILE",
    });
  }
  const build = readBuildOptions(flags, given);
  for (const warning of build.warnings) log.warn(warning);
  return {
    build,
    loadConfig,
    run: (job, host) => watchAndRun(job, { host, level: logLevelOf(flags), timing: build.timing }),
  };
}

/** `run`: one program, in a Pod of its own. */
async function runProgram(invocation: Of<"run">, world: World): Promise<number> {
  const { host, log, timing } = world;
  const { findKubectl, kubectlArguments, runPod } = await import("./kubectl.ts");
  findKubectl(host);
  await using session = await startSession(invocation, world);
  const { choosePrograms } = await import("./go-programs.ts");
  const {
    published: [published],
  } = await session.publish(invocation.positionals, (found) => {
    const programs = choosePrograms(found);
    const [program, another] = programs;
    if (program !== undefined && another === undefined) return { programs };
    throw new UsageError(
      `Cannot run "${invocation.positionals[0]}": it names ${programs.length} programs, one is wanted`,
      {
        hint: `Name one of them: ko run ${program?.importPath ?? "./cmd/app"}`,
      },
    );
  });
  if (published === undefined) throw new RangeError("nothing was published");
  return await timing.time("kubectl", "run", () =>
    runPod(host, {
      importPath: published.program.importPath,
      reference: published.reference,
      afterDashes: invocation.afterDashes,
      kubectl: kubectlArguments(invocation.flags, invocation.given),
      log,
    }),
  );
}
