/** The Docker daemon and the local clusters, for `ko doctor`: which one is found, and why not the others. */
import { type ClusterKind, findCluster, lastWords } from "./cluster.ts";
import { DockerEngine } from "./docker.ts";
import { type DaemonEndpoint, findDaemon, NoDaemonError, WELL_KNOWN } from "./docker-host.ts";
import { type CheckContext, failed, type Finding } from "./doctor-check.ts";
import { KoError } from "./errors.ts";
import type { LocalTarget } from "./publish-destination.ts";

const KINDS: readonly ClusterKind[] = ["kind", "k3d", "minikube"];

/**
 * The daemon of `-L`. A failure is a problem if a setting names the daemon, or images go there; else a note.
 *
 * @param target the local target of the images
 */
export async function checkDaemon(
  { host, log, signal }: CheckContext,
  target: LocalTarget | undefined,
): Promise<readonly Finding[]> {
  const name = "docker";
  const isWanted = target === "daemon";
  let endpoint: DaemonEndpoint | undefined;
  try {
    endpoint = await findDaemon(host);
    const { source, tried, url } = endpoint;
    await using engine = await DockerEngine.open(endpoint, { log, signal });
    const [{ architecture, os }, store] = await Promise.all([engine.platform(), engine.storeKind()]);
    const not = tried.length === 0 ? "" : `; not ${tried.join(", ")}`;
    const { apiVersion } = engine;
    return [
      {
        name,
        status: "ok",
        message: `${url} (${source}), API ${apiVersion}, ${os}/${architecture}, ${describeStore(store)}${not}`,
        facts: { url, source, apiVersion, platform: `${os}/${architecture}`, store, tried },
      },
    ];
  } catch (error) {
    if (!(error instanceof KoError) || signal.aborted) throw error;
    const isNamed = endpoint === undefined ? !(error instanceof NoDaemonError) : endpoint.source !== WELL_KNOWN;
    return failed(name, error, { failure: isWanted || isNamed ? "problem" : "note" });
  }
}

function describeStore(store: "classic" | "containerd" | "podman"): string {
  return store === "podman" ? "podman" : `${store} store`;
}

/** The clusters that images can be loaded into. Only that of `target` must be there. */
export async function checkClusters(
  context: CheckContext,
  target: LocalTarget | undefined,
): Promise<readonly Finding[]> {
  const name = "clusters";
  const { host, log, signal } = context;
  const findings: Finding[] = [];
  const names: string[] = [];
  const lines = await Promise.all(
    KINDS.map(async (kind): Promise<string> => {
      if (kind === "minikube" && target !== kind && host.findProgram(kind) === undefined)
        return "minikube: not installed";
      try {
        const cluster = await findCluster(kind, { host, log, signal });
        names.push(`${kind}:${cluster.name}`);
        return `${kind} "${cluster.name}"`;
      } catch (error) {
        if (!(error instanceof KoError) || signal.aborted) throw error;
        if (kind !== target) return `${kind}: ${explain(error)}`;
        findings.push(...failed(name, error, { hint: kind === "minikube" ? "minikube status" : "docker ps" }));
        return `${kind}: see below`;
      }
    }),
  );
  return [{ name, status: "ok", message: lines.join("; "), facts: { names: names.sort() } }, ...findings];
}

/** The reason alone: the line names the kind. */
function explain(error: KoError): string {
  return error.cause instanceof KoError && error.message.startsWith("Cannot look")
    ? lastWords(error.cause)
    : error.message.replace(/^Cannot [^:]*: /, "");
}
