/**
 * The cluster that kubectl will speak to: its context, and whether kubectl finds it.
 *
 * kubectl itself is asked, because its rules for kubeconfigs, plugins and proxies are its own.
 */
import { setTimeout } from "node:timers/promises";
import { ClusterError, CommandError, printable } from "./errors.ts";
import { type Host, type RunResult, withSignal } from "./host.ts";
import { isObject, parseJson } from "./json.ts";
import { clusterArguments, findKubectl } from "./kubectl.ts";
import type { Log } from "./log.ts";
import { redactUrl } from "./url.ts";

/** The context that kubectl uses. */
export interface Context {
  /** Empty if there is none. */
  readonly name: string;
  /** Undefined if neither a flag nor the context names one. */
  readonly namespace: string | undefined;
  /** The URL of the API server without secrets; empty if the kubeconfig names none. */
  readonly server: string;
  /** Whether a program of the kubeconfig may ask a person to log in, in a browser or on the terminal. */
  readonly asksPerson: boolean;
  /** The last line of kubectl's complaint; empty if there is none. */
  readonly complaint: string;
}

export interface LookOptions {
  readonly log: Log;
  /** Arguments of kubectl, of which those count that say where the cluster is and who asks. */
  readonly words: readonly string[];
  /** Milliseconds of work before kubectl is asked: runs with unchanged images end earlier. @default 1500 */
  readonly patience?: number;
}

/** Complaints of kubectl about its flags and files, which stay until a person mends them. */
const HOPELESS =
  /^error: (?:cannot locate context |context "|error loading config file |no server found for cluster |invalid configuration|unable to read |unable to load |invalid timeout |stat )/i;
/** The start of kubectl's complaint about an API server that it cannot reach. */
const AWAY = /^(?:The connection to the server|Unable to connect to the server)/;

/**
 * Does work that ends in kubectl, such as a build before `kubectl apply`, and looks meanwhile whether kubectl will find
 * its cluster.
 *
 * A server that does not answer and a namespace that does not exist are warnings: both may be there in time.
 *
 * @throws {ClusterError} As soon as kubectl cannot succeed: the context or a file of the kubeconfig does not exist.
 */
export async function whileLooking<T>(host: Host, options: LookOptions, work: (host: Host) => Promise<T>): Promise<T> {
  const hopeless = new AbortController();
  const done = new AbortController();
  const looking = lookForCluster(withSignal(host, done.signal), options).then(
    (error) => error && hopeless.abort(error),
    // The work has ended, or kubectl cannot be run: then it says so itself.
    () => {},
  );
  try {
    return await work(withSignal(host, AbortSignal.any([host.signal, hopeless.signal])));
  } catch (error) {
    hopeless.signal.throwIfAborted();
    throw error;
  } finally {
    done.abort();
    await looking;
  }
}

/** Waits, asks kubectl, and warns. @returns the error that will stay */
export async function lookForCluster(host: Host, options: LookOptions): Promise<ClusterError | undefined> {
  const { log, patience = 1500, words } = options;
  await setTimeout(patience, undefined, { signal: host.signal });
  const flags = clusterArguments(words);
  const context = await readContext(host, flags);
  if (HOPELESS.test(context.complaint)) return hopelessError(host, context.complaint, flags);
  // The login would be cut off at the end of the work.
  if (context.asksPerson) return undefined;
  const { namespace = "default" } = context;
  const limit = flags.some((word) => word.startsWith("--request-timeout")) ? [] : ["--request-timeout=5s"];
  const { stderr } = await askKubectl(host, ["get", "namespace", namespace, "--output=name", ...limit, ...flags]);
  const complaint = lastLine(stderr);
  if (HOPELESS.test(complaint)) return hopelessError(host, complaint, flags);
  const where = context.name === "" ? "" : ` of context ${context.name}`;
  if (AWAY.test(complaint)) {
    const why = complaint.replace(/ - did you specify .*$/, "");
    log.warn(`The cluster${where} does not answer yet: ${why}. ${toType(context.name, why)}`);
  } else if (/\(NotFound\)/.test(stderr)) {
    log.warn(`The cluster${where} has no namespace "${namespace}" yet: kubectl create namespace ${namespace}`);
  } else if (/\(Unauthorized\)/.test(stderr)) {
    log.warn(`The cluster${where} refuses the credentials of the kubeconfig. ${toType(context.name, complaint)}`);
  }
  return undefined;
}

async function hopelessError(host: Host, complaint: string, flags: readonly string[]): Promise<ClusterError> {
  const missing = /^error: (?:cannot locate context|context) "?(.*?)"?(?: does not exist)?$/.exec(complaint)?.[1];
  if (missing === undefined) {
    return new ClusterError(`kubectl cannot be used: ${complaint.replace(/^error: /, "")}`, {
      hint: "Correct that file or flag, or set KUBECONFIG to another file.",
    });
  }
  const kubeconfig = flags.filter((word, i) => word.startsWith("--kubeconfig") || flags[i - 1] === "--kubeconfig");
  const { stdout } = await askKubectl(host, ["config", "get-contexts", "--output=name", ...kubeconfig]);
  const names = printable(new TextDecoder().decode(stdout).trim().split("\n").join(", "), 300);
  if (names === "") {
    return new ClusterError(`The kubeconfig has no context "${missing}"`, {
      hint: "Make one: kubectl config set-context NAME, or set KUBECONFIG to another file.",
    });
  }
  return new ClusterError(`The kubeconfig has no context "${missing}": it has ${names}`, {
    hint: "Pass one of them: --context NAME",
  });
}

/** Reads the context that kubectl would use. @param flags those of kubectl that name a cluster or user */
export async function readContext(host: Host, flags: readonly string[], limit: AskOptions = {}): Promise<Context> {
  const args = ["config", "view", "--minify", "--output=json", ...flags];
  const { stderr, stdout } = await askKubectl(host, args, limit);
  const config = parseJson(new TextDecoder().decode(stdout));
  const user = firstOf(config, "users");
  const server = textAt(firstOf(config, "clusters"), "cluster", "server");
  return {
    name: textAt(config, "current-context"),
    namespace: givenNamespace(flags) ?? (textAt(firstOf(config, "contexts"), "context", "namespace") || undefined),
    server: server === "" ? "" : redactUrl(server),
    asksPerson: hasField(user, "auth-provider") || mayPrompt(user),
    complaint: lastLine(stderr),
  };
}

/** https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins */
function mayPrompt(user: unknown): boolean {
  return hasField(user, "exec") && textAt(user, "user", "exec", "interactiveMode") !== "Never";
}

function hasField(user: unknown, name: string): boolean {
  const settings = isObject(user) ? user["user"] : undefined;
  return isObject(settings) && settings[name] !== undefined;
}

function givenNamespace(flags: readonly string[]): string | undefined {
  const at = flags.findLastIndex((word) => /^(?:-n|--namespace)/.test(word));
  const word = flags[at];
  return /^(?:-n|--namespace)$/.test(word ?? "") ? flags[at + 1] : word?.replace(/^(?:-n=?|--namespace=)/, "");
}

/** The command that brings a cluster back, or another context. @param why kubectl's complaint */
export function clusterHint(context: string, why: string): string {
  if (/x509|certificate|Unauthorized|credentials|logged in/i.test(why)) {
    return "Get the kubeconfig of that cluster anew, or choose another: kubectl config use-context NAME";
  }
  if (context === "minikube") return "minikube start";
  const k3d = /^k3d-(.+)$/.exec(context)?.[1];
  if (k3d !== undefined) return `k3d cluster start ${k3d}`;
  return "Start the cluster, or choose another: kubectl config use-context NAME";
}

/** The hint as a sentence. */
function toType(context: string, why: string): string {
  const hint = clusterHint(context, why);
  return /^[A-Z]/.test(hint) ? hint : `Type: ${hint}`;
}

/** The last line of a program's output, safe to print. */
export function lastLine(text: string): string {
  return printable(text.trim().split("\n").at(-1) ?? "", 400);
}

/** A text within parsed JSON, safe to print; empty if it is not there. */
export function textAt(value: unknown, ...keys: readonly string[]): string {
  let at = value;
  for (const key of keys) at = isObject(at) ? at[key] : undefined;
  return typeof at === "string" ? printable(at, 300) : "";
}

function firstOf(value: unknown, key: string): unknown {
  const list = isObject(value) ? value[key] : undefined;
  return Array.isArray(list) ? list[0] : undefined;
}

interface AskOptions {
  /** Milliseconds. @default none */
  readonly timeout?: number;
}

/** Runs kubectl and returns its output, whatever its exit code. A kubectl that cannot be run has no stdout. */
export async function askKubectl(
  host: Host,
  args: readonly string[],
  { timeout }: AskOptions = {},
): Promise<Pick<RunResult, "stdout" | "stderr">> {
  const path = findKubectl(host);
  try {
    return await host.run([path, ...args], { anyExitCode: true, ...(timeout === undefined ? {} : { timeout }) });
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    host.signal.throwIfAborted();
    return { stdout: new Uint8Array(0), stderr: error.message.replace(`Cannot run ${path}: `, "") };
  }
}
