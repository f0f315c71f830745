/**
 * `ko check`: finds everything in YAML, configuration and programs that would make a run fail, as far as it can be known
 * without a build, the network, a cluster, and without a change of any file.
 */
import { Cache } from "./cache.ts";
import {
  checkEntries,
  type CheckedSettings,
  readSettings,
  reportTemplates,
  type SetupErrors,
  tryTemplates,
} from "./check-config.ts";
import { countFindings, type Finding, Findings, formatJson, formatLines } from "./check-findings.ts";
import { checkPrograms, findCheckedPrograms } from "./check-programs.ts";
import { checkDocuments, type CheckedReferences, checkReferences } from "./check-yaml.ts";
import { refuseCluster } from "./cli-options.ts";
import { CommandError, KoError, KoErrors, UsageError } from "./errors.ts";
import type { FoundPrograms, Program } from "./go-programs.ts";
import type { Host } from "./host.ts";
import { styleOfStdout } from "./log-style.ts";
import { formatCount, type Log } from "./log.ts";
import { checkPlatforms } from "./oci.ts";
import type { Naming } from "./reference.ts";
import { type Reading, readReferences, selectNames } from "./resolve.ts";
import { redactUrl } from "./url.ts";
import { isUrl, readInputs } from "./yaml-inputs.ts";

export interface CheckRequest {
  /** The values of `-f`. */
  readonly files: readonly string[];
  /** `-R` */
  readonly recursive: boolean;
  /** `-l` */
  readonly selector: string;
  /** Import paths, folders and patterns. @default without files: all programs of the module */
  readonly args: readonly string[];
  /** The values of `--platform`. */
  readonly platforms: readonly string[];
  /** Undefined without a flag. */
  readonly naming: Naming | undefined;
  /** `-L` */
  readonly local: boolean;
  /** `--json` */
  readonly json: boolean;
}

/** The programs of a run if the user names none. */
const ALL_PROGRAMS = "./...";

/**
 * Checks, and prints the findings on stdout.
 *
 * @returns the exit code: 1 if there is an error
 * @throws {UsageError} If the command line is wrong.
 */
export async function runCheck(request: CheckRequest, { host, log }: { host: Host; log: Log }): Promise<number> {
  await checkRequest(request);
  const findings = new Findings(host.cwd);
  const { files, json, local, naming, platforms } = request;
  const settings = await readSettings({ findings, host, local, log, naming, platforms });
  const reading = files.length === 0 ? undefined : await readYaml(request, { findings, host, log });
  const counts = await checkAll(request, { findings, host, log, reading, settings });
  // Work that a signal ended is no finding.
  host.signal.throwIfAborted();
  const found = findings.sorted();
  await host.out(json ? formatJson(found) : formatLines(found, styleOfStdout(host)));
  await annotate(found, host);
  const { errors, warnings } = countFindings(found);
  const documents = reading === undefined ? [] : [formatCount(reading.referring.length, "document")];
  const checked = [...documents, formatCount(counts.programs, "program")].join(" and ");
  log.info(`Checked ${checked}: ${formatCount(errors, "error")}, ${formatCount(warnings, "warning")}`);
  if (settings === undefined) log.info("Programs are checked when the settings are right.");
  return errors > 0 ? 1 : 0;
}

/** In GitHub Actions, shows the findings at their places, too. */
async function annotate(findings: readonly Finding[], host: Host): Promise<void> {
  if (host.annotate === undefined) return;
  const { formatAnnotation } = await import("./events-github.ts");
  for (const { severity, ...finding } of findings) {
    const annotation = formatAnnotation({ type: severity, ...finding }, host);
    if (annotation !== undefined) host.annotate(annotation);
  }
}

async function checkRequest({ files, platforms, selector }: CheckRequest): Promise<void> {
  const url = files.find(isUrl);
  if (url !== undefined) {
    throw new UsageError(`Cannot check "${redactUrl(url)}": ko check makes no request`, {
      hint: "Type: curl URL | ko check -f -",
    });
  }
  checkPlatforms(platforms, "--platform");
  refuseCluster(platforms);
  if (selector !== "") (await import("./yaml-selector.ts")).parseSelector(selector);
}

interface Context {
  readonly findings: Findings;
  readonly host: Host;
  readonly log: Log;
}

async function readYaml(request: CheckRequest, { findings, host, log }: Context): Promise<Reading | undefined> {
  const { files, recursive, selector } = request;
  const { signal } = host;
  const warnings: string[] = [];
  const warn = (message: string): void => void warnings.push(message);
  const inputs = await findings.collect("input", () =>
    readInputs({ files, recursive, kustomize: undefined }, { host, log: { ...log, warn }, signal }),
  );
  if (inputs === undefined) return undefined;
  for (const warning of warnings) findings.add(warning, { rule: "input", severity: "warning" });
  return findings.collect("yaml", () => readReferences(inputs, { selector, signal, records: undefined }));
}

interface CheckAllOptions extends Context {
  readonly reading: Reading | undefined;
  readonly settings: CheckedSettings | undefined;
}

async function checkAll(
  request: CheckRequest,
  { findings, host, log, reading, settings }: CheckAllOptions,
): Promise<{ readonly programs: number }> {
  const values = selectNames(reading?.occurrences.keys() ?? []);
  const given = request.files.length === 0 && request.args.length === 0 ? [ALL_PROGRAMS] : request.args;
  const args = [...new Set([...values, ...given])];
  const go = settings && { host, log, go: settings.config.goPath };
  const templates = settings && go && (await tryTemplates(settings, go));
  const { results, listings } =
    settings === undefined || templates === undefined || args.length === 0
      ? { results: [], listings: [] }
      : await findPrograms(args, { findings, host, log, settings, templates });
  const programs = programsOf(results);
  const reported = templates?.messages ?? new Set<string>();
  const resultOf = new Map(args.map((arg, i) => [arg, results[i]]));
  reportArguments(given, { findings, reported, resultOf });
  let checked: CheckedReferences = { programOf: new Map(), places: new Map() };
  if (reading !== undefined) {
    if (settings !== undefined) {
      const found = new Map(values.map((value) => [value, resultOf.get(value)]));
      checked = checkReferences(found, reading, { findings, reported });
    }
    await checkDocuments(reading, {
      findings,
      host,
      selector: request.selector,
      settings,
      programOf: checked.programOf,
    });
  }
  if (settings === undefined || templates === undefined || go === undefined) return { programs: 0 };
  reportTemplates(templates, { findings, programs, settings });
  await findings.collect("config", () => checkEntries(programs, { ...go, findings, settings }));
  const { naming, platform, repository } = settings;
  const options = {
    ...go,
    findings,
    setups: templates.setups,
    platform,
    cache: undefined,
    listings,
    naming,
    repository,
  };
  await checkPrograms(programs, { ...options, places: checked.places });
  return { programs: programs.length };
}

async function findPrograms(
  args: readonly string[],
  options: Context & { readonly settings: CheckedSettings; readonly templates: SetupErrors },
): Promise<FoundPrograms> {
  const { findings, host, log, settings, templates } = options;
  const { config, platform } = settings;
  const { setups } = templates;
  await using cache = setups === settings.setups ? Cache.openToRead(host, log) : undefined;
  const search = { host, log, go: config.goPath, setups, platform, cache };
  const found = await findings.collect("program", () => findCheckedPrograms(args, search));
  return found ?? { results: [], listings: [] };
}

/** The programs of all results, each once. */
function programsOf(results: FoundPrograms["results"]): readonly Program[] {
  const programs = results.flatMap((result) => (result instanceof KoError ? [] : result));
  return [...new Map(programs.map((program) => [program.importPath, program])).values()];
}

interface ReportOptions {
  readonly findings: Findings;
  readonly reported: ReadonlySet<string>;
  readonly resultOf: ReadonlyMap<string, FoundPrograms["results"][number] | undefined>;
}

/** Reports the errors of arguments, and once those of go itself, which all references share. */
function reportArguments(args: readonly string[], { findings, reported, resultOf }: ReportOptions): void {
  const wanted = new Set(args);
  for (const [arg, result] of resultOf) {
    if (!(result instanceof KoError)) continue;
    for (const error of result instanceof KoErrors ? result.errors : [result]) {
      if (reported.has(error.message)) continue;
      if (wanted.has(arg) || error instanceof CommandError) findings.addError(error, { rule: "program" });
    }
  }
}
