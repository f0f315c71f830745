/**
 * Credentials for registries, and the interface of the sources that they come from.
 *
 * The sources are in registry-keychain.ts and its parts.
 */
import type { Repository } from "./reference.ts";

/** `identity` is an OAuth2 refresh token; `bearer` is sent to the registry as it is. */
export type Credential =
  | { readonly kind: "basic"; readonly username: string; readonly password: string }
  | { readonly kind: "identity"; readonly token: string }
  | { readonly kind: "bearer"; readonly token: string };

export interface FoundCredential {
  readonly credential: Credential;
  /** Where the credential is from, for messages: `auths entry "ghcr.io" in /root/.docker/config.json`. No secret. */
  readonly source: string;
}

export interface FindOptions {
  /** `files` asks only the sources that cost nothing; `all` also runs credential helpers and asks clouds. */
  readonly effort: "files" | "all";
  /** Whether the credential is for a push. A source that fails is an error then; a pull goes on without it. */
  readonly push: boolean;
}

/** One source of credentials, or a chain of them. */
export interface Keychain {
  /**
   * The credential for a repository; undefined means anonymous.
   *
   * @param options @default everything that a push may ask
   * @throws {KoError} If a source that is configured for the repository cannot be read.
   */
  find(repository: Repository, options?: FindOptions): Promise<FoundCredential | undefined>;
  /** Why a source that may hold a credential gave none, for the error when the registry refuses. */
  explain?(repository: Repository): readonly string[];
}

/** The search for a push: all sources. */
export const FOR_PUSH: FindOptions = { effort: "all", push: true };
