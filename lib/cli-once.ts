/** One run of a command that builds: `build`, `resolve`, `apply`, `create` and `run` without `--watch`. */
import {
  besideCluster,
  type Building,
  checkFlags,
  type Of,
  placeOf,
  type ReadingYaml,
  type ReportedOptions,
  requestOf,
  type Run,
  writesArchiveToStdout,
} from "./cli-building.ts";
import { logLevelOf } from "./cli-parse.ts";
import { KoError, UsageError } from "./errors.ts";
import type { Config } from "./config.ts";
import type { Pipeline, PublishedProgram } from "./pipeline.ts";

/** Runs a building command once; `--timing` is reported at its end. */
export async function runOnce(invocation: Building, { flags, host }: ReportedOptions): Promise<number> {
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
      await host.out(await resolveYaml(invocation, run));
      return 0;
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
  const [{ openChooser }, { loadConfig }] = await Promise.all([import("./cli-choice.ts"), import("./config.ts")]);
  const config = await loadConfig(host);
  const { args, choose } = await openChooser(invocation, { config, host, log });
  await using pipeline = await openPipeline(run, config);
  const { published } = await pipeline.publish(args, (found) => choose(found, pipeline));
  const { imageRefs } = build.publish;
  if (published.length === 0 && imageRefs !== undefined) {
    // The references of an earlier run would be taken for those of this one.
    const [{ writeImageRefs }, { resolve }] = await Promise.all([import("./publish.ts"), import("node:path")]);
    await writeImageRefs(resolve(host.cwd, imageRefs), []);
  }
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
  const only = await besideCluster(invocation, run, (watched) => publishOne(invocation, { ...run, ...watched }));
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
  const text = await besideCluster(invocation, run, (watched) => resolveYaml(invocation, { ...run, ...watched }));
  if (selector !== "" && text === "") {
    throw new KoError(`No object in ${filename.join(", ") || "the kustomization"} has the labels ${selector}`);
  }
  const { kubectlArguments, runKubectl } = await import("./kubectl.ts");
  const place = kubectlArguments(invocation.flags, invocation.given);
  const args = [invocation.command, "-f", "-", ...place, ...withoutEmpty(invocation.afterDashes)] as const;
  if (limit !== undefined) {
    const { applyAndWait } = await import("./rollout-apply.ts");
    return await applyAndWait(host, { log, timing, args, text, limit, isLive: run.isLive === true });
  }
  const stdin = new TextEncoder().encode(text);
  const code = await timing.time("kubectl", invocation.command, () => runKubectl(host, args, { log, stdin }));
  if (code === 0) await (await import("./rollout-swap-undo.ts")).undoKilledSwaps(host, { log, words: args });
  return code;
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

/** Opens the pipeline of a building command. The configuration is read here: YAML without references needs none. */
async function openPipeline({ build, cache, host, log, nodes, timing }: Run, known?: Config): Promise<Pipeline> {
  const [{ loadConfig }, { Pipeline: Opened }] = await Promise.all([import("./config.ts"), import("./pipeline.ts")]);
  for (const warning of build.warnings) log.warn(warning);
  const config = known ?? (await loadConfig(host));
  log.debug(`Configuration: ${config.source ?? "none"}`);
  return Opened.open({ host, log, timing, cache, config, build, nodes });
}
