/**
 * A place on this machine that images are loaded into: the Docker or podman daemon, the nodes of kind or k3d, minikube.
 *
 * Found before anything is built, so that a daemon that is not there is told of at once.
 */
import type { LocalTarget } from "./destination.ts";
import type { DockerEngine } from "./docker.ts";
import type { Host } from "./host.ts";
import type { Image } from "./image.ts";
import type { Log } from "./log.ts";
import type { Platform } from "./oci.ts";

/** A local target that was found. */
export interface LocalPlace extends AsyncDisposable {
  /** What it runs. */
  platform(): Promise<Platform>;
  /**
   * Loads an image under full names with tags; the first one names the content.
   *
   * @throws {KoError} If it is not there under all names afterwards.
   */
  load(image: Image, names: readonly string[]): Promise<"present" | "loaded">;
}

export interface LocalPlaceOptions {
  readonly host: Host;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** @throws {KoError} If the target is not there, or cannot be asked. */
export async function findLocalPlace(target: LocalTarget, options: LocalPlaceOptions): Promise<LocalPlace> {
  switch (target) {
    case "daemon":
      return daemonPlace(await openDaemon(options), options);
    case "kind":
    case "k3d": {
      const [{ findNodes, nodesPlatform }, { loadIntoNodes }] = await Promise.all([
        import("./nodes.ts"),
        import("./nodeload.ts"),
      ]);
      const nodes = await findNodes(target, options);
      return {
        platform: () => nodesPlatform(nodes, options),
        load: async (image, names) => {
          await loadIntoNodes(nodes, [{ image, names }], options);
          return "loaded";
        },
        [Symbol.asyncDispose]: () => Promise.resolve(),
      };
    }
    case "minikube": {
      const { findMinikube, loadIntoMinikube, minikubePlatform } = await import("./minikube.ts");
      const found = await findMinikube(options);
      if (found.way === "docker") {
        const { env } = found;
        return daemonPlace(await openDaemon({ ...options, host: { ...options.host, env } }), options);
      }
      const { profile } = found;
      return {
        platform: () => minikubePlatform(profile, options),
        load: async (image, names) => {
          await loadIntoMinikube(profile, [{ image, names }], options);
          return "loaded";
        },
        [Symbol.asyncDispose]: () => Promise.resolve(),
      };
    }
  }
}

/** The daemon that the host's environment, its Docker context or a well-known socket names. */
export async function openDaemon({ host, log, signal }: LocalPlaceOptions): Promise<DockerEngine> {
  const [{ findDaemon }, { DockerEngine }] = await Promise.all([import("./dockerhost.ts"), import("./docker.ts")]);
  return DockerEngine.open(await findDaemon(host), { log, signal });
}

function daemonPlace(engine: DockerEngine, { log, signal }: LocalPlaceOptions): LocalPlace {
  return {
    platform: () => engine.platform(),
    load: async (image, names) => {
      const { loadImage } = await import("./dockerload.ts");
      return loadImage(engine, image, names, { log, signal });
    },
    [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose](),
  };
}
