/**
 * kubectl: finding it, its flags that ko takes too, one run of it, and the Pod of `ko run`.
 *
 * Arguments for kubectl may be secret (`--token`): they are shown by {@link showArguments} only. Facts:
 * spec/behaviour.md 1.6. It knows no YAML.
 */
import { type FlagTable, type FlagValues, takesWord } from "./cli-flags.ts";
import { KoError } from "./errors.ts";
import type { Host } from "./host.ts";
import type { Log } from "./log.ts";

/** kubectl's flags that `ko apply`, `create` and `run` take without `--`: which cluster, as whom, which namespace. */
export const KUBECTL_FLAGS = {
  kubeconfig: {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "The kubeconfig file for kubectl.",
  },
  context: { kind: "text", default: "", placeholder: "NAME", help: "The kubeconfig context for kubectl." },
  cluster: { kind: "text", default: "", placeholder: "NAME", help: "The kubeconfig cluster for kubectl." },
  user: { kind: "text", default: "", placeholder: "NAME", help: "The kubeconfig user for kubectl." },
  namespace: { kind: "text", short: "n", default: "", placeholder: "NAME", help: "The namespace for kubectl." },
  server: { kind: "text", short: "s", default: "", placeholder: "URL", help: "The API server for kubectl." },
  token: { kind: "text", default: "", placeholder: "TOKEN", help: "The bearer token for the API server." },
  as: { kind: "text", default: "", placeholder: "USER", help: "The user to impersonate." },
  "as-group": {
    kind: "list",
    default: [],
    commas: false,
    placeholder: "GROUP",
    help: "A group to impersonate; may be repeated.",
  },
  "as-uid": { kind: "text", default: "", placeholder: "UID", help: "The UID to impersonate." },
  "certificate-authority": {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "The certificate of the API server's CA.",
  },
  "client-certificate": {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "The certificate to show to the API server.",
  },
  "client-key": {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "The key of that certificate.",
  },
  "insecure-skip-tls-verify": {
    kind: "bool",
    default: false,
    help: "Take any certificate from the API server.",
  },
  "tls-server-name": {
    kind: "text",
    default: "",
    placeholder: "NAME",
    help: "The name that must be in the API server's certificate.",
  },
  "request-timeout": {
    kind: "text",
    default: "",
    placeholder: "TIME",
    help: "How long kubectl waits for one answer, such as 30s.",
  },
  "cache-dir": {
    kind: "text",
    default: "",
    placeholder: "DIR",
    completes: "directory",
    help: "The folder for what kubectl keeps.",
  },
} as const;

/** How long the Pod of an interrupted `ko run` may keep ko from ending. */
const REMOVE_MS = 5000;

/**
 * The absolute path of kubectl.
 *
 * @throws {KoError} If it is not on PATH.
 */
export function findKubectl(host: Host): string {
  const path = host.findProgram("kubectl");
  if (path !== undefined) return path;
  throw new KoError("Cannot find kubectl: no folder on PATH has it", {
    hint: "Install it (https://kubernetes.io/docs/tasks/tools/), or put its folder on PATH.",
  });
}

/** The flags of {@link KUBECTL_FLAGS} that the user wrote, as words for kubectl: `--name=value`, sorted by name. */
export function kubectlArguments(
  values: FlagValues<typeof KUBECTL_FLAGS>,
  given: ReadonlySet<string>,
): readonly string[] {
  const all: Readonly<Record<keyof typeof KUBECTL_FLAGS, string | boolean | readonly string[]>> = values;
  return Object.keys(KUBECTL_FLAGS)
    .filter(isKubectlFlag)
    .filter((name) => given.has(name))
    .sort()
    .flatMap((name) => {
      const value = all[name];
      // One word each: kubectl takes "--flag true" for a flag and a word.
      return (typeof value === "object" ? value : [value]).map((one) => `--${name}=${one}`);
    });
}

export interface RunKubectlOptions {
  readonly log: Log;
  /** What it reads: text, or our own standard input. @default nothing */
  readonly stdin?: Uint8Array | "inherit";
  /** Gets its stdout as it comes. @default ours */
  readonly onOutput?: (chunk: Uint8Array) => unknown;
  /** Gets its stderr as it comes. @default ours */
  readonly onError?: (text: string) => void;
}

/**
 * Runs kubectl to its end, its stdout and stderr being ours unless somebody wants them.
 *
 * It stays in our process group: a terminal's Ctrl-C reaches it, and it may ask the terminal. Its input need not be read.
 *
 * @returns its exit code
 * @throws {Interrupted} When ko is told to end; kubectl has ended by then.
 * @throws {KoError} If it is not there, or a signal ended it.
 */
export async function runKubectl(host: Host, args: readonly string[], options: RunKubectlOptions): Promise<number> {
  const kubectl = findKubectl(host);
  options.log.debug(`kubectl ${showArguments(args)}`);
  const { code } = await host.run([kubectl, ...args], {
    stdin: options.stdin ?? new Uint8Array(0),
    stdout: options.onOutput ?? "inherit",
    stderr: options.onError ?? "inherit",
    ownGroup: false,
    anyExitCode: true,
  });
  return code;
}

/** Words for kubectl as they may be shown: of flags the names only, of other words none but the first. */
export function showArguments(args: readonly string[]): string {
  const shown = args.slice(1).flatMap((word) => {
    if (word.startsWith("--")) return word.includes("=") ? [`${word.slice(0, word.indexOf("="))}=…`] : [word];
    if (word.startsWith("-") && word.length > 1) return [word.length > 2 ? `${word.slice(0, 2)}…` : word];
    return ["…"];
  });
  return [...args.slice(0, 1), ...shown].join(" ");
}

export interface PodOptions {
  readonly importPath: string;
  /** The published image. */
  readonly reference: string;
  /** Words for `kubectl run`: its flags, words for the program, and after another `--` the program's flags. */
  readonly afterDashes: readonly string[];
  /** As {@link kubectlArguments} gives them. */
  readonly kubectl: readonly string[];
  readonly log: Log;
}

/**
 * Runs an image in a new Pod, shows what it prints, and takes the Pod away at the end.
 *
 * kubectl takes no Pod away when it is interrupted: ko does it then.
 *
 * @returns the program's exit code
 * @throws {Interrupted} When ko is told to end.
 * @throws {KoError} If kubectl cannot be run.
 */
export async function runPod(host: Host, options: PodOptions): Promise<number> {
  const { log, afterDashes } = options;
  const name = podName(options.importPath, crypto.randomUUID().slice(0, 5));
  log.info(`Running ${options.reference} as pod ${name}`);
  try {
    return await runKubectl(host, runArguments(name, options), { log, stdin: "inherit" });
  } finally {
    if (host.signal.aborted && !isKept(afterDashes)) {
      const cluster = [...options.kubectl, ...clusterArguments(afterDashes)];
      await removePod(host, { name, cluster, log });
    }
  }
}

/** The last element of the import path as a name that a Pod and a label may have, at most 63 characters with `suffix`. */
export function podName(importPath: string, suffix: string): string {
  const last = importPath.slice(importPath.lastIndexOf("/") + 1).toLowerCase();
  const label = last.replace(/[^a-z0-9]+/g, "-").slice(0, 62 - suffix.length);
  // The suffix: two runs at once are two Pods.
  return `${label.replace(/^-+|-+$/g, "") || "ko"}-${suffix}`;
}

/** The words of `kubectl run`; those of the user come last, so that they win. */
export function runArguments(name: string, options: Omit<PodOptions, "importPath" | "log">): readonly string[] {
  return [
    "run",
    name,
    `--image=${options.reference}`,
    "--attach",
    "--rm",
    "--restart=Never",
    "--log-flush-frequency=1s",
    ...options.kubectl,
    ...options.afterDashes,
  ];
}

/** The flags of {@link KUBECTL_FLAGS} among words for kubectl. */
export function clusterArguments(words: readonly string[]): readonly string[] {
  const end = words.indexOf("--");
  const own = end < 0 ? words : words.slice(0, end);
  const table: FlagTable = KUBECTL_FLAGS;
  return own.flatMap((word, i) => {
    const found = Object.entries(table).find(([name, { short }]) => {
      return word.split("=", 1)[0] === `--${name}` || (short !== undefined && word.startsWith(`-${short}`));
    });
    if (found === undefined) return [];
    const alone = word === `--${found[0]}` || word === `-${found[1].short}`;
    const value = own[i + 1];
    return alone && takesWord(found[1]) && value !== undefined ? [word, value] : [word];
  });
}

/** Whether the user wants the Pod to outlive the run. */
function isKept(words: readonly string[]): boolean {
  const end = words.indexOf("--");
  const flags = (end < 0 ? words : words.slice(0, end)).filter((word) => /^--(rm|attach)(=|$)/.test(word));
  return flags.some((word) => /=(0|f|F|false|FALSE|False)$/.test(word));
}

interface RemovePodOptions {
  readonly name: string;
  readonly cluster: readonly string[];
  readonly log: Log;
}

async function removePod(host: Host, { name, cluster, log }: RemovePodOptions): Promise<void> {
  const args = ["delete", "pod", name, "--ignore-not-found", "--wait=false", ...cluster];
  try {
    // The run's own signal has fired already.
    await host.run([findKubectl(host), ...args], { signal: new AbortController().signal, timeout: REMOVE_MS });
  } catch {
    log.warn(`pod ${name} may still be there: kubectl delete pod ${name}`);
  }
}

function isKubectlFlag(name: string): name is keyof typeof KUBECTL_FLAGS {
  return Object.hasOwn(KUBECTL_FLAGS, name);
}
