/** The commands that connect a client to a program of `--debug`, for a person to copy. */
import { DEBUG_PORT, type DebugSettings } from "./image-config.ts";
import { clusterArguments, KUBECTL_FLAGS } from "./kubectl.ts";

/** A published program that Delve starts. */
export interface Debuggee {
  readonly importPath: string;
  readonly debug: DebugSettings;
}

export interface ForwardOptions {
  /** Arguments of {@link placeArguments}. @default none */
  readonly place?: readonly string[];
  /** The namespace that the object names. @default none */
  readonly namespace?: string | undefined;
}

/** The flags of kubectl that say where objects are. All others may be secret. */
const PLACE_FLAGS = {
  kubeconfig: KUBECTL_FLAGS.kubeconfig,
  context: KUBECTL_FLAGS.context,
  cluster: KUBECTL_FLAGS.cluster,
  namespace: KUBECTL_FLAGS.namespace,
} as const;

/** Returns the arguments of kubectl that say where objects are. @param words arguments of kubectl */
export function placeArguments(words: readonly string[]): readonly string[] {
  return clusterArguments(words, PLACE_FLAGS);
}

/** Returns the lines for a program: its state, how its port gets to this machine, and how a client connects. */
export function formatAttach({ debug, importPath }: Debuggee, forwards: readonly string[]): string {
  const port = portOf(debug);
  const state = debug.isContinuing ? "runs, and takes a debugger" : "waits for a debugger";
  const lines = [...new Set(forwards), `dlv connect localhost:${port}`].map((command) => `\n  ${command}`);
  return `${importPath} ${state} on port ${port}:${lines.join("")}`;
}

/** Returns the command that forwards the port of an object: `deployment/web`, `pod/web`. */
export function forwardCommand(
  resource: string,
  { debug, namespace, place = [] }: ForwardOptions & Pick<Debuggee, "debug">,
): string {
  const isNamed = place.some((word) => word.startsWith("--namespace") || word.startsWith("-n"));
  const own = namespace === undefined || isNamed ? [] : ["-n", namespace];
  return ["kubectl", "port-forward", ...place, ...own, resource, String(portOf(debug))].map(quote).join(" ");
}

/** Returns the command for an image that no object is known of. */
export function startCommand(reference: string, { debug }: Pick<Debuggee, "debug">): string {
  if (!reference.startsWith("ko.local/")) return forwardCommand("pod/POD", { debug });
  const port = portOf(debug);
  return `docker run --rm -p 127.0.0.1:${port}:${port} ${quote(reference)}`;
}

function portOf({ port = DEBUG_PORT }: DebugSettings): number {
  return port;
}

/** Quotes a word for a shell, if that is needed. */
function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
