/**
 * The sources of credentials in the order in which they are asked: AWS, the files of Docker and podman, Google, GitHub,
 * Azure. A cloud is asked for its own hosts only, and its module is loaded then.
 *
 * Rules: docs/rules.md B1.1, B7.
 */
import { KoError } from "./errors.ts";
import type { Host } from "./host.ts";
import type { Log } from "./log.ts";
import { formatRepository, type Repository } from "./reference.ts";
import { type Cloud, findCloud } from "./registry-clouds.ts";
import { type FindOptions, FOR_PUSH, type FoundCredential, type Keychain } from "./registry-credential.ts";
import type { CloudContext, CloudOptions, CloudSource } from "./registry-keychain-cloud.ts";
import { FileKeychain } from "./registry-keychain-file.ts";

export interface KeychainOptions {
  /** Milliseconds that a credential helper may take. @default 60,000 */
  readonly helperTimeout?: number;
  readonly cloud?: CloudOptions;
}

/** The credentials of a run: those of all sources. It reads no file and asks no cloud before the first `find`. */
export function createKeychain(host: Host, log: Log, options: KeychainOptions = {}): Keychain {
  const context = { host, log };
  const cloud = (name: AskedCloud): Keychain => new CloudKeychain(name, { ...context, options: options.cloud ?? {} });
  const file = new FileKeychain(context, options);
  return chainKeychains([cloud("aws"), file, cloud("google"), githubKeychain(host), cloud("azure")], log);
}

/**
 * A keychain that asks others in turn: the first credential wins.
 *
 * An error ends the search for a push. The search for a pull goes on, with a warning.
 */
export function chainKeychains(keychains: readonly Keychain[], log?: Log): Keychain {
  /** The failures of searches for a pull, by host. */
  const failures = new Map<string, Set<string>>();
  const warn = ({ host }: Repository, error: KoError): void => {
    const known = failures.get(host) ?? new Set();
    failures.set(host, known);
    if (!known.has(error.message)) log?.warn(error.message);
    known.add(error.message);
  };
  return {
    find: async (repository, options = FOR_PUSH) => {
      for (const keychain of keychains) {
        try {
          const found = await keychain.find(repository, options);
          if (found !== undefined) return found;
        } catch (error) {
          if (options.push || !(error instanceof KoError)) throw error;
          warn(repository, error);
        }
      }
      return undefined;
    },
    explain: (repository) => [
      ...(failures.get(repository.host) ?? []),
      ...keychains.flatMap((keychain) => keychain.explain?.(repository) ?? []),
    ],
  };
}

/** `GITHUB_TOKEN`, for ghcr.io. GitHub Actions sets both variables; the registry ignores the name of the user. */
function githubKeychain({ env }: Host): Keychain {
  return {
    find: async ({ host }, { effort } = FOR_PUSH) => {
      const password = env["GITHUB_TOKEN"]?.trim();
      // A token of another organization would be refused even for public images.
      if (findCloud(host) !== "github" || effort !== "all" || !password) return undefined;
      const username = env["GITHUB_ACTOR"] || "unset";
      return { credential: { kind: "basic", username, password }, source: "GITHUB_TOKEN" };
    },
    explain: ({ host }) => (findCloud(host) === "github" ? ["GITHUB_TOKEN is not set"] : []),
  };
}

/** The clouds that are asked over the network. */
type AskedCloud = Exclude<Cloud, "github">;

/** The credentials of one cloud. Each registry is asked for once per run, and again when its credential gets old. */
class CloudKeychain implements Keychain {
  readonly #cloud: AskedCloud;
  readonly #context: CloudContext;
  /** Why there is no credential, by host. */
  readonly #reasons = new Map<string, string>();
  #source: Promise<CloudSource> | undefined;

  constructor(cloud: AskedCloud, context: CloudContext) {
    this.#cloud = cloud;
    this.#context = context;
  }

  async find(repository: Repository, options: FindOptions = FOR_PUSH): Promise<FoundCredential | undefined> {
    const { host } = repository;
    if (options.effort !== "all" || findCloud(host) !== this.#cloud) return undefined;
    const { log } = this.#context;
    this.#source ??= openSource(this.#cloud, this.#context);
    const source = await this.#source;
    try {
      const found = await source.find(host);
      if ("none" in found) {
        this.#explain(host, `${source.name} has none: ${found.none.join(", ")}`);
        return undefined;
      }
      log.debug(`Credentials for ${formatRepository(repository)}: ${found.source}`);
      return found;
    } catch (error) {
      if (!(error instanceof KoError)) throw error;
      // Not an error of the push: the file may hold a login for the same host.
      const reason = [error.message, error.hint].filter(Boolean).join(", try: ");
      if (!options.push && !this.#reasons.has(host)) log.warn(`No credentials for ${host}: ${reason}`);
      this.#explain(host, reason);
      return undefined;
    }
  }

  explain({ host }: Repository): readonly string[] {
    const reason = this.#reasons.get(host);
    return reason === undefined ? [] : [reason];
  }

  #explain(host: string, reason: string): void {
    if (!this.#reasons.has(host)) this.#context.log.debug(`No credentials for ${host}: ${reason}`);
    this.#reasons.set(host, reason);
  }
}

async function openSource(cloud: AskedCloud, context: CloudContext): Promise<CloudSource> {
  const { CloudSource: Source } = await import("./registry-keychain-cloud.ts");
  switch (cloud) {
    case "aws":
      return new Source(context, (await import("./registry-keychain-aws.ts")).awsProvider());
    case "google":
      return new Source(context, (await import("./registry-keychain-google.ts")).googleProvider());
    case "azure":
      return new Source(context, (await import("./registry-keychain-azure.ts")).azureProvider());
  }
}
