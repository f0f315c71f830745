/**
 * The cluster that kubectl will speak to: its context, whether kubectl finds it, and what its nodes run.
 *
 * kubectl itself is asked, because its rules for kubeconfigs, plugins and proxies are its own.
 */
import { setTimeout } from "node:timers/promises";
import { inBackground, until } from "./async.ts";
import { ClusterError, CommandError, type KoError, printable } from "./errors.ts";
import { type Host, type RunResult, withSignal } from "./host.ts";
import { isObject, listAt, parseJson, textAt } from "./json.ts";
import { type ClusterNode, listPlatforms, NODE_COLUMNS, readNodes, runsPlatform } from "./kubectl-nodes.ts";
import { clusterArguments, findKubectl } from "./kubectl.ts";
import type { Log } from "./log.ts";
import { formatPlatform, parsePlatform, type Platform } from "./oci.ts";
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
  /** Asks for the nodes at once. @default false */
  readonly asksNodes?: boolean;
}

/** The nodes of a cluster, or why the user gets no list of them. */
export type NodeList = { readonly nodes: readonly ClusterNode[] } | { readonly unknown: string };

/** What a run is going to build, and where it goes. */
export interface PlannedBuilds {
  readonly programs: readonly { readonly importPath: string; readonly platforms: readonly Platform[] }[];
  /** The platform of the daemon or of the nodes that images are loaded into. @default images are pulled from a registry */
  readonly localPlatform?: (() => Promise<string>) | undefined;
}

/** Complaints of kubectl about its flags and files, which stay until a person mends them. */
const HOPELESS =
  /^error: (?:cannot locate context |context "|error loading config file |no server found for cluster |invalid configuration|unable to read |unable to load |invalid timeout |stat )/i;
/** The start of kubectl's complaint about an API server that it cannot reach. */
const AWAY = /^(?:The connection to the server|Unable to connect to the server)/;
/** What kubectl itself writes to stderr, beside programs that it starts. */
const COMPLAINT =
  /^(?:error: |Error from server|The connection to the server|Unable to connect|Warning: |[EIWF]\d{4} )/i;

/**
 * Does work that ends in kubectl, such as a build before `kubectl apply`, and looks meanwhile whether kubectl will find
 * its cluster.
 *
 * A server that does not answer and a namespace that does not exist are warnings: both may be there in time.
 *
 * @param work gets the nodes, which no program is started for unless it asks
 * @throws {ClusterError} As soon as kubectl cannot succeed: the context or a file of the kubeconfig does not exist.
 */
export async function whileLooking<T>(
  host: Host,
  options: LookOptions,
  work: (parts: { readonly host: Host; readonly nodes: ClusterNodes }) => Promise<T>,
): Promise<T> {
  const done = new AbortController();
  const nodes = new ClusterNodes(withSignal(host, AbortSignal.any([host.signal, done.signal])), options);
  if (options.asksNodes === true) nodes.begin();
  const look = (aside: Host): Promise<ClusterError | undefined> => lookForCluster(aside, { ...options, nodes });
  return withLookout(host, look, async (watched) => {
    try {
      return await work({ host: watched, nodes });
    } finally {
      // The look waits for the nodes: their end comes first.
      done.abort();
      await nodes.settle();
    }
  });
}

/**
 * Does work, and ends it with the error that a look beside it returns. The end of the work ends the look.
 *
 * @param look its own failure does not matter: the program that the work runs tells what it knows
 * @param work gets a host whose signal the error of the look aborts
 */
export async function withLookout<T>(
  host: Host,
  look: (host: Host) => Promise<KoError | undefined>,
  work: (host: Host) => Promise<T>,
): Promise<T> {
  const hopeless = new AbortController();
  const done = new AbortController();
  const looking = look(withSignal(host, AbortSignal.any([host.signal, done.signal]))).then(
    (error) => error && hopeless.abort(error),
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

/** The nodes of the cluster, asked for once. A failure is forgotten, so that a watch can ask again. */
export class ClusterNodes {
  readonly #host: Host;
  readonly #log: Log;
  readonly #flags: readonly string[];
  readonly #planned = Promise.withResolvers<PlannedBuilds>();
  #list: Promise<NodeList> | undefined;
  #name: Promise<string> | undefined;

  /** @param host its signal ends kubectl */
  constructor(host: Host, { log, words }: Pick<LookOptions, "log" | "words">) {
    this.#host = host;
    this.#log = log;
    this.#flags = clusterArguments(words);
  }

  /** Starts to ask, so that {@link list} has the answer sooner. */
  begin(): void {
    void inBackground(this.list());
  }

  /**
   * @param options.silent hides what a login of the kubeconfig writes
   * @throws {ClusterError} If the cluster does not answer, or kubectl cannot be used.
   */
  list({ silent = false }: { readonly silent?: boolean } = {}): Promise<NodeList> {
    this.#list ??= this.#ask(silent).catch((error: unknown) => {
      this.#list = undefined;
      throw error;
    });
    return this.#list;
  }

  /** The cluster, for messages: `context kind-dev`. */
  name(): Promise<string> {
    this.#name ??= readContext(this.#host, this.#flags).then(({ name }) =>
      name === "" ? "the cluster" : `context ${name}`,
    );
    return this.#name;
  }

  /** Receives the programs and platforms of the build, for {@link findMismatches}. Only the first call counts. */
  announce(planned: PlannedBuilds): void {
    this.#planned.resolve(planned);
  }

  /** Returns warnings about programs that no node runs, once it is known what is built. Silent if nodes are not known. */
  async findMismatches(): Promise<readonly string[]> {
    const { localPlatform, programs } = await until(this.#planned.promise, this.#host.signal);
    const local = localPlatform === undefined ? undefined : parsePlatform(await localPlatform());
    const list = local === undefined ? await this.list({ silent: true }) : { nodes: [{ platform: local }] };
    if ("unknown" in list || list.nodes.length === 0) return [];
    const { nodes } = list;
    const bad = programs.filter(
      ({ platforms }) => !platforms.some((built) => nodes.some(({ platform }) => runsPlatform(platform, built))),
    );
    if (bad.length === 0) return [];
    const built = [...new Set(bad.flatMap(({ platforms }) => platforms.map(formatPlatform)))].sort().join(" or ");
    const run = listPlatforms(nodes).join(", ");
    const whose = bad.length === programs.length ? "" : `${bad.map(({ importPath }) => importPath).join(", ")}: `;
    const what =
      local === undefined
        ? `no node of ${await this.name()} runs ${built} (they run ${run})`
        : `the target of local images runs ${run}, not ${built}`;
    return [`${whose}${what}: use --platform=cluster`];
  }

  /** Waits until kubectl has ended. Never throws. */
  async settle(): Promise<void> {
    await Promise.allSettled([this.#list, this.#name]);
  }

  async #ask(silent: boolean): Promise<NodeList> {
    const flags = this.#flags;
    const limit = flags.some((word) => word.startsWith("--request-timeout")) ? [] : ["--request-timeout=10s"];
    const args = ["get", "nodes", `--output=${NODE_COLUMNS}`, ...limit, ...flags];
    const { code, stderr, stdout } = await askKubectl(this.#host, args, {
      // A login may say what to do in a browser, and wait.
      onError: (text) => (silent || COMPLAINT.test(text) ? undefined : this.#log.info(text.trimEnd())),
    });
    if (code === 0) return { nodes: readNodes(new TextDecoder().decode(stdout)) };
    const complaint = lastLine(stderr);
    if (HOPELESS.test(complaint)) throw await hopelessError(this.#host, complaint, flags);
    if (/\(Forbidden\)/.test(stderr)) return { unknown: "does not let this user list its nodes" };
    if (/the server doesn't have a resource type "nodes"/.test(stderr)) return { unknown: "has no nodes to list" };
    const { name } = await readContext(this.#host, flags);
    const where = name === "" ? "the cluster" : `the cluster of context ${name}`;
    throw new ClusterError(`Cannot ask ${where} what its nodes run: ${complaint}`, {
      hint: `${toType(name, complaint)}\nOr name the platforms, as in --platform=linux/amd64`,
      transient: true,
    });
  }
}

/** Waits, asks kubectl, and warns. @returns the error that will stay */
export async function lookForCluster(
  host: Host,
  options: LookOptions & { readonly nodes?: ClusterNodes },
): Promise<ClusterError | undefined> {
  const { log, nodes, patience = 1500, words } = options;
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
  } else {
    for (const line of (await nodes?.findMismatches()) ?? []) log.warn(line);
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
  const user = listAt(config, "users")[0];
  const server = shownAt(listAt(config, "clusters")[0], "cluster", "server");
  return {
    name: shownAt(config, "current-context"),
    namespace: givenNamespace(flags) ?? (shownAt(listAt(config, "contexts")[0], "context", "namespace") || undefined),
    server: server === "" ? "" : redactUrl(server),
    asksPerson: hasField(user, "auth-provider") || mayPrompt(user),
    complaint: lastLine(stderr),
  };
}

/** https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins */
function mayPrompt(user: unknown): boolean {
  return hasField(user, "exec") && shownAt(user, "user", "exec", "interactiveMode") !== "Never";
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
export function shownAt(value: unknown, ...keys: readonly string[]): string {
  return printable(textAt(value, ...keys), 300);
}

interface AskOptions {
  /** Milliseconds. @default none */
  readonly timeout?: number;
  /** Gets stderr as it comes, too. @default nothing */
  readonly onError?: (text: string) => void;
}

/** Runs kubectl and returns its output, whatever its exit code: -1 and no stdout for a kubectl that cannot be run. */
export async function askKubectl(
  host: Host,
  args: readonly string[],
  { onError, timeout }: AskOptions = {},
): Promise<RunResult> {
  const path = findKubectl(host);
  try {
    return await host.run([path, ...args], {
      anyExitCode: true,
      ...(timeout === undefined ? {} : { timeout }),
      ...(onError === undefined ? {} : { stderr: onError }),
    });
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    host.signal.throwIfAborted();
    return { code: -1, stdout: new Uint8Array(0), stderr: error.message.replace(`Cannot run ${path}: `, "") };
  }
}
