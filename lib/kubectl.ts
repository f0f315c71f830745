/**
 * Finds and runs kubectl, also for the pod of `ko run`, and declares the kubectl flags that ko accepts.
 *
 * Arguments of kubectl may be secret (`--token`): log them only through {@link showArguments}.
 */
import { type FlagTable, type FlagValues, takesWord } from "./cli-flags.ts";
import { ClusterError } from "./errors.ts";
import { type Host, installHint } from "./host.ts";
import type { Log } from "./log.ts";

/** The kubectl flags that `ko apply`, `create` and `run` accept before `--`: cluster, user and namespace. */
export const KUBECTL_FLAGS = {
  kubeconfig: {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "Kubeconfig file.",
  },
  context: { kind: "text", default: "", placeholder: "NAME", help: "Context in the kubeconfig." },
  cluster: { kind: "text", default: "", placeholder: "NAME", help: "Cluster in the kubeconfig." },
  user: { kind: "text", default: "", placeholder: "NAME", help: "User in the kubeconfig." },
  namespace: { kind: "text", short: "n", default: "", placeholder: "NAME", help: "Namespace of the objects." },
  server: { kind: "text", short: "s", default: "", placeholder: "URL", help: "Address of the API server." },
  token: { kind: "text", default: "", placeholder: "TOKEN", help: "Bearer token for the API server." },
  as: { kind: "text", default: "", placeholder: "USER", help: "User to impersonate." },
  "as-group": {
    kind: "list",
    default: [],
    commas: false,
    placeholder: "GROUP",
    help: "Group to impersonate. Can be repeated.",
  },
  "as-uid": { kind: "text", default: "", placeholder: "UID", help: "UID to impersonate." },
  "certificate-authority": {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "CA certificate of the API server.",
  },
  "client-certificate": {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "Client certificate for the API server.",
  },
  "client-key": {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "Private key of the client certificate.",
  },
  "insecure-skip-tls-verify": {
    kind: "bool",
    default: false,
    help: "Skip verification of the API server's certificate.",
  },
  "tls-server-name": {
    kind: "text",
    default: "",
    placeholder: "NAME",
    help: "Name to expect in the API server's certificate.",
  },
  "request-timeout": {
    kind: "text",
    default: "",
    placeholder: "TIME",
    help: "Timeout of a single request, such as 30s.",
  },
  "cache-dir": {
    kind: "text",
    default: "",
    placeholder: "DIR",
    completes: "directory",
    help: "kubectl's cache directory.",
  },
} as const;

/** The timeout for removing the pod of an interrupted `ko run`, in milliseconds. */
const REMOVE_MS = 5000;

/**
 * Returns the absolute path of kubectl.
 *
 * @throws {KoError} If kubectl is not on PATH.
 */
export function findKubectl(host: Host): string {
  const path = host.findProgram("kubectl");
  if (path !== undefined) return path;
  throw new ClusterError("Cannot find kubectl: it is not on PATH", {
    hint: installHint("kubectl (https://kubernetes.io/docs/tasks/tools/)"),
  });
}

/** Formats the given flags of {@link KUBECTL_FLAGS} as arguments of kubectl: `--name=value`, sorted by name. */
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
      // Joined by "=": kubectl reads "--flag true" as a flag and an argument.
      return (typeof value === "object" ? value : [value]).map((one) => `--${name}=${one}`);
    });
}

export interface RunKubectlOptions {
  readonly log: Log;
  /** The bytes of stdin, or ko's own stdin. @default empty */
  readonly stdin?: Uint8Array | "inherit";
  /** Receives stdout in chunks. @default writes to ko's stdout */
  readonly onOutput?: (chunk: Uint8Array) => unknown;
  /** Receives stderr in chunks. @default writes to ko's stderr */
  readonly onError?: (text: string) => void;
}

/**
 * Runs kubectl until it exits.
 *
 * kubectl stays in ko's process group, so that Ctrl-C reaches it and it can prompt on the terminal. It need not read all
 * of stdin.
 *
 * @returns the exit code
 * @throws {Interrupted} If ko is interrupted; kubectl has exited by then.
 * @throws {KoError} If kubectl is missing, or was ended by a signal.
 */
export async function runKubectl(host: Host, args: readonly string[], options: RunKubectlOptions): Promise<number> {
  const kubectl = findKubectl(host);
  options.log.debug(`kubectl ${showArguments(args)}`);
  const { code } = await host.run([kubectl, ...args], {
    stdin: options.stdin ?? new Uint8Array(0),
    stdout: options.onOutput ?? "inherit",
    stderr: options.onError ?? "inherit",
    group: "terminal",
    anyExitCode: true,
  });
  return code;
}

/** Formats arguments of kubectl for the log, without values: the verb and the names of the flags. */
export function showArguments(args: readonly string[]): string {
  const shown = args.slice(1).flatMap((word) => {
    if (word.startsWith("--")) return word.includes("=") ? [`${word.slice(0, word.indexOf("="))}=…`] : [word];
    if (word.startsWith("-") && word.length > 1) return [word.length > 2 ? `${word.slice(0, 2)}…` : word];
    return ["…"];
  });
  return [...args.slice(0, 1), ...shown].join(" ");
}

export interface PodOptions {
  /** Of the pod: {@link podName}. */
  readonly name: string;
  /** The published image. */
  readonly reference: string;
  /** Arguments of `kubectl run`: its flags, arguments of the program, and after another `--` flags of the program. */
  readonly afterDashes: readonly string[];
  /** The output of {@link kubectlArguments}. */
  readonly kubectl: readonly string[];
  readonly log: Log;
}

/**
 * Runs an image in a new pod, shows its output, and removes the pod at the end.
 *
 * kubectl does not remove the pod when it is interrupted, so ko does.
 *
 * @returns the program's exit code
 * @throws {Interrupted} If ko is interrupted.
 * @throws {KoError} If kubectl cannot be run.
 */
export async function runPod(host: Host, options: PodOptions): Promise<number> {
  const { log, name, afterDashes } = options;
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

/** Derives a pod name from the last element of the import path: a valid label, at most 63 characters with `suffix`. */
export function podName(importPath: string, suffix: string): string {
  const last = importPath.slice(importPath.lastIndexOf("/") + 1).toLowerCase();
  const label = last.replace(/[^a-z0-9]+/g, "-").slice(0, 62 - suffix.length);
  // The suffix keeps the pods of concurrent runs apart.
  return `${label.replace(/^-+|-+$/g, "") || "ko"}-${suffix}`;
}

/** Returns the arguments of `kubectl run`; those of the user come last and take precedence. */
export function runArguments(name: string, options: Omit<PodOptions, "name" | "log">): readonly string[] {
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

/** Returns the flags of a table, with their values, among arguments of kubectl. */
export function clusterArguments(words: readonly string[], table: FlagTable = KUBECTL_FLAGS): readonly string[] {
  const end = words.indexOf("--");
  const own = end < 0 ? words : words.slice(0, end);
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

/** Reports whether kubectl changes nothing. */
export function isDryRun(words: readonly string[]): boolean {
  return words.some((word) => /^--dry-run(?:=(?!none$)|$)/.test(word));
}

/** Reports whether the user asks kubectl to keep the pod. */
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
    // The host's own signal has been aborted.
    await host.run([findKubectl(host), ...args], { signal: new AbortController().signal, timeout: REMOVE_MS });
  } catch {
    log.warn(`pod ${name} may still exist: kubectl delete pod ${name}`);
  }
}

function isKubectlFlag(name: string): name is keyof typeof KUBECTL_FLAGS {
  return Object.hasOwn(KUBECTL_FLAGS, name);
}
