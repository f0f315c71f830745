/**
 * `ko doctor`: what this machine has, and what ko would do with it.
 *
 * The report is a line for each finding, or JSON as in docs/schemas/doctor.v1.json. Nothing is written, built or pushed.
 */
import { type Config, loadConfig } from "./config.ts";
import { type Check, failed, type Finding, runChecks } from "./doctor-check.ts";
import { checkClusters, checkDaemon } from "./doctor-daemon.ts";
import { checkCache, checkCertificates, checkInotify, checkProxy, checkTemporary } from "./doctor-machine.ts";
import { checkBase, checkRegistry, type RegistryCheckOptions } from "./doctor-registry.ts";
import { checkGit, checkGo, checkKubectl, INSTALL_GO } from "./doctor-tools.ts";
import { KoError, printable } from "./errors.ts";
import type { Host } from "./host.ts";
import { type Style, styleOfStdout } from "./log-style.ts";
import { formatCount, type Log } from "./log.ts";
import { readTarget, type Target } from "./publish-destination.ts";
import { Secrets } from "./url.ts";
import { koVersion } from "./version.ts";

export interface DoctorOptions {
  readonly log: Log;
  /** Arguments of kubectl that choose the cluster. */
  readonly kubectl: readonly string[];
  /** `-L`: images go to the local daemon. */
  readonly local: boolean;
  readonly insecureRegistry: boolean;
  readonly json: boolean;
  /** The folder with the limits of inotify. @default that of Linux */
  readonly inotify?: string;
}

export interface Report {
  /** For stdout. */
  readonly text: string;
  /** 1 if there is a problem. */
  readonly exitCode: number;
}

const INOTIFY = "/proc/sys/fs/inotify";
const VERSION = 1;
/** Before the others, which tell servers the version. Git is asked if ko runs from its sources. */
const KO_CHECK: Check = {
  name: "ko",
  subject: "git",
  failure: "note",
  limit: 2000,
  run: async ({ host }) => [describeKo(host, await koVersion(host))],
};
/** Columns of the status and of the name. */
const STATUS_WIDTH = 9;
const NAME_WIDTH = 14;

/**
 * Runs all checks and formats their findings.
 *
 * @throws the reason of the host's signal, if it aborts
 */
export async function runDoctor(host: Host, options: DoctorOptions): Promise<Report> {
  const { json, log } = options;
  const [ko] = await runChecks([KO_CHECK], { host, log });
  const version = String(ko?.facts?.["version"] ?? "unknown");
  const checks = await listChecks(host, { ...options, userAgent: `ko/${version}` });
  const findings = [...(ko === undefined ? [] : [ko]), ...(await runChecks(checks, { host, log }))].map(clean);
  const problems = findings.filter(({ status }) => status === "problem").length;
  const notes = findings.filter(({ status }) => status === "note").length;
  const text = json
    ? `${JSON.stringify({ version: VERSION, koVersion: version, problems, notes, findings }, undefined, 2)}\n`
    : [
        ...findings.flatMap((finding) => formatFinding(finding, styleOfStdout(host))),
        `${formatCount(problems, "problem")}, ${formatCount(notes, "note")}`,
        "",
      ].join("\n");
  return { text, exitCode: problems === 0 ? 0 : 1 };
}

async function listChecks(
  host: Host,
  options: DoctorOptions & { readonly userAgent: string },
): Promise<readonly Check[]> {
  const { insecureRegistry, kubectl, userAgent } = options;
  const config = await readConfig(host);
  const { repository, target } = readRepository(
    config.value?.dockerRepo ?? (host.env["KO_DOCKER_REPO"] || undefined),
    options,
  );
  const local = target?.local;
  const isRemote = target !== undefined && local === undefined;
  const registries: RegistryCheckOptions = {
    userAgent,
    insecureHosts: isRemote && insecureRegistry ? [target.host] : [],
    rules: config.value?.registries ?? new Map(),
  };
  const bases = config.value === undefined ? [] : basesOf(config.value);
  const fixed = (findings: readonly Finding[], name: string): Check => ({
    name,
    subject: name,
    run: async () => findings,
  });
  return [
    { name: "go", subject: "go", run: checkGo, hint: INSTALL_GO },
    { name: "git", subject: "git", run: checkGit },
    { name: "kubectl", subject: "kubectl", run: (context) => checkKubectl(context, kubectl), hint: "kubectl version" },
    {
      name: "docker",
      subject: "the daemon",
      failure: local === "daemon" || host.env["DOCKER_HOST"] ? "problem" : "note",
      hint: "docker info",
      run: (context) => checkDaemon(context, local),
    },
    {
      name: "clusters",
      subject: "one of kind, k3d and minikube",
      failure: local === undefined || local === "daemon" ? "note" : "problem",
      hint: "docker ps",
      run: (context) => checkClusters(context, local),
    },
    fixed(config.findings, "config"),
    fixed(repository, "repository"),
    ...(isRemote
      ? [
          {
            name: "registry",
            subject: target.host,
            isRemote: true,
            hint: "Check KO_DOCKER_REPO, and whether that registry runs.",
            run: (context) => checkRegistry(context, target, registries),
          } satisfies Check,
        ]
      : []),
    ...bases.map((text): Check => ({
      name: "base",
      subject: text,
      isRemote: true,
      hint: "Choose another base: defaultBaseImage in .ko.yaml, KO_DEFAULTBASEIMAGE.",
      run: (context) => checkBase(context, text, registries),
    })),
    { name: "cache", subject: "the disk of the cache", run: checkCache },
    { name: "temporary", subject: "the disk of TMPDIR", run: checkTemporary },
    { name: "inotify", subject: "the system", run: () => checkInotify(options.inotify ?? INOTIFY) },
    { name: "proxy", subject: "the environment", run: async (context) => checkProxy(context) },
    { name: "certificates", subject: "the disk of the certificates", run: checkCertificates },
  ];
}

/** Where images go, as `KO_DOCKER_REPO` and `-L` say. */
function readRepository(
  dockerRepo: string | undefined,
  { local }: Pick<DoctorOptions, "local">,
): { readonly repository: readonly Finding[]; readonly target: Target | undefined } {
  const name = "repository";
  try {
    const target = readTarget(local ? "ko.local" : dockerRepo);
    if (target === undefined) {
      const message = "KO_DOCKER_REPO is not set: there is no registry to push to";
      const hint = "export KO_DOCKER_REPO=registry.example.com/me, or pass -L for the local daemon";
      return { repository: [{ name, status: "note", message, hint }], target };
    }
    const { host, repository } = target;
    const where = target.local === undefined ? "" : `, into the local ${target.local}`;
    const message = `images go to ${repository}${where}`;
    const facts = { repository, host, ...(target.local === undefined ? {} : { local: target.local }) };
    return { repository: [{ name, status: "ok", message, facts }], target };
  } catch (error) {
    if (!(error instanceof KoError)) throw error;
    const hint = "export KO_DOCKER_REPO=registry.example.com/me";
    return { repository: failed(name, error, { hint }), target: undefined };
  }
}

async function readConfig(
  host: Host,
): Promise<{ readonly findings: readonly Finding[]; readonly value: Config | undefined }> {
  const name = "config";
  try {
    const value = await loadConfig(host);
    const { source, warnings } = value;
    const message = source ?? "there is no .ko.yaml in the working directory: defaults and KO_ variables hold";
    const facts = source === undefined ? undefined : { file: source };
    const notes = warnings.map((line): Finding => ({ name, status: "note", message: line }));
    return { findings: [{ name, status: "ok", message, facts }, ...notes], value };
  } catch (error) {
    if (!(error instanceof KoError)) throw error;
    const hint = "Correct it: docs/configuration.md has every key.";
    return { findings: failed(name, error, { hint }), value: undefined };
  }
}

/** The default base and those of single programs, each once. */
function basesOf({ baseImageOverrides, defaultBaseImage }: Config): readonly string[] {
  return [...new Set([defaultBaseImage, ...baseImageOverrides.values()])];
}

function describeKo({ arch, cpus, platform }: Host, version: string): Finding {
  const message = `${version} on ${platform}/${arch}, ${formatCount(cpus, "processor")}`;
  return { name: "ko", status: "ok", message, facts: { version, platform, arch, cpus } };
}

/** Makes texts of other programs safe for a terminal, and the message one line without the credentials of URLs. */
function clean({ facts, hint, message, name, status }: Finding): Finding {
  const shown = new Secrets().hide(
    printable(message, 1000)
      .trim()
      .replace(/:\s*\n\s*/g, ": ")
      .replace(/\s*\n\s*/g, "; "),
  );
  return {
    name,
    status,
    message: shown,
    ...(hint === undefined ? {} : { hint: printable(hint, 1000) }),
    ...(facts === undefined ? {} : { facts }),
  };
}

function formatFinding({ hint, message, name, status }: Finding, style: Style): readonly string[] {
  const indent = " ".repeat(STATUS_WIDTH + NAME_WIDTH);
  const hints = hint?.split("\n").map((line) => `${indent}${style.hint(line)}`) ?? [];
  const paint = { ok: style.success, note: style.warning, problem: style.error }[status];
  return [`${paint(status)}${" ".repeat(STATUS_WIDTH - status.length)}${name.padEnd(NAME_WIDTH)}${message}`, ...hints];
}
