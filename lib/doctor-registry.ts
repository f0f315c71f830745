/**
 * The registries of `ko doctor`: whether that of the images takes our credential, whether bases can be read.
 *
 * Nothing is uploaded. A registry is asked for its API and for a manifest, with the rights and the credential of a push; each
 * request is sent once.
 */
import { systemClock } from "./async.ts";
import { adviseOnBase, readBase, showBase } from "./base.ts";
import { type BaseName, parseBase } from "./config.ts";
import type { CheckContext, Finding } from "./doctor-check.ts";
import { KoError, RegistryError } from "./errors.ts";
import { isObject, parseJson } from "./json.ts";
import { DEADLINES } from "./http-transfer.ts";
import type { HostRules } from "./http-hosts.ts";
import { Http } from "./http.ts";
import { MEDIA_TYPES } from "./oci.ts";
import type { Target } from "./publish-destination.ts";
import { formatReference, formatRepository, imageName, parseRepository, type Repository } from "./reference.ts";
import { loginCommand } from "./registry-clouds.ts";
import type { FindOptions, FoundCredential, Keychain } from "./registry-credential.ts";
import { createKeychain } from "./registry-keychain.ts";
import { Connection } from "./registry-transport.ts";
import { Secrets } from "./url.ts";

export interface RegistryCheckOptions {
  /** Hosts to which plain HTTP and unverified TLS are allowed. */
  readonly insecureHosts: readonly string[];
  /** The user's rules for hosts. */
  readonly rules: HostRules;
  readonly userAgent: string;
}

/** Milliseconds for a credential helper: less than the check has. */
const HELPER_MS = 2500;
/** The last part of the name of an image that is asked for. It need not exist. */
const IMAGE = "ko-doctor";
const ACCEPT = [MEDIA_TYPES.ociIndex, MEDIA_TYPES.ociManifest, MEDIA_TYPES.dockerList, MEDIA_TYPES.dockerManifest].join(
  ", ",
);

/** Asks the registry of the images as a push does, but for an upload. */
export async function checkRegistry(
  context: CheckContext,
  target: Target,
  options: RegistryCheckOptions,
): Promise<readonly Finding[]> {
  const name = "registry";
  const { host, repository } = target;
  const keychain = new WatchedKeychain(makeKeychain(context));
  const image = parseRepository(imageName(repository, IMAGE, "base"));
  const isAllowed = await ask(image, "latest", {
    ...options,
    action: `use ${host}`,
    context,
    keychain,
    push: true,
  }).catch((error: unknown) => {
    throw adviseOnRefusal(error, target);
  });
  const { asked, source } = keychain;
  if (asked === undefined) {
    return [{ name, status: "ok", message: `${host} answers, and asks for no credential`, facts: { host } }];
  }
  if (source === undefined) {
    const why = keychain.explain(asked).join("; ") || "none is set";
    const message = `${host} answers, but there is no credential for a push: ${why}`;
    return [{ name, status: "note", message, hint: `Log in: ${loginCommand(host)}`, facts: { host } }];
  }
  const facts = { host, credential: source };
  if (isAllowed === false) {
    const message = `${host} answers, but the credential from ${source} may not push to ${formatRepository(image)}`;
    const hint = `Log in as a user who may: ${loginCommand(host)}`;
    return [{ name, status: "problem", message, hint, facts }];
  }
  return [{ name, status: "ok", message: `${host} answers, and takes the credential from ${source}`, facts }];
}

/** The refusal of a push, without the name of our image in the hint: it is not the user's. */
function adviseOnRefusal(error: unknown, { host, repository }: Target): unknown {
  if (!(error instanceof RegistryError) || error.status !== 403) return error;
  const hint = `Log in as a user who may push to ${repository}, or create the repositories there first: ${loginCommand(host)}`;
  return new KoError(error.message, { hint });
}

/** Looks whether a base image can be read. @param text its name in the configuration */
export async function checkBase(
  context: CheckContext,
  text: string,
  options: RegistryCheckOptions,
): Promise<readonly Finding[]> {
  const spec = parseBase(text, context.host.cwd);
  const image = showBase(spec);
  const ok = (why: string): readonly Finding[] => [
    { name: "base", status: "ok", message: `${image} ${why}`, facts: { image } },
  ];
  switch (spec.kind) {
    case "builtin":
      return ok("is made by ko itself");
    case "scratch":
      return ok("is the empty image");
    case "layout":
      await readLayout(spec, { shown: image, signal: context.signal });
      return ok("can be read");
    case "registry":
      if (spec.reference.host === "ko.local") return ok("is an image of the local daemon");
      await askForBase(context, spec, { ...options, text });
      return ok("can be read");
  }
}

async function readLayout(
  spec: Extract<BaseName, { readonly kind: "layout" }>,
  { shown, signal }: { readonly shown: string; readonly signal: AbortSignal },
): Promise<void> {
  const { openLayout } = await import("./layout.ts");
  await readBase(openLayout(spec.path), { spec, shown, signal });
}

async function askForBase(
  context: CheckContext,
  { reference }: Extract<BaseName, { readonly kind: "registry" }>,
  options: RegistryCheckOptions & { readonly text: string },
): Promise<void> {
  const name = reference.digest ?? reference.tag ?? "latest";
  try {
    const action = `read base "${formatReference(reference)}"`;
    await ask(reference, name, { ...options, action, context, keychain: makeKeychain(context), push: false });
  } catch (error) {
    throw adviseOnBase(error, options.text);
  }
}

function makeKeychain({ host, log }: CheckContext): Keychain {
  return createKeychain(host, log, { helperTimeout: HELPER_MS });
}

/** Notes for which repository a credential was asked, and where it was found. */
class WatchedKeychain implements Keychain {
  readonly #inner: Keychain;
  asked: Repository | undefined;
  source: string | undefined;

  constructor(inner: Keychain) {
    this.#inner = inner;
  }

  async find(repository: Repository, options?: FindOptions): Promise<FoundCredential | undefined> {
    this.asked = repository;
    const found = await this.#inner.find(repository, options);
    this.source = found?.source;
    return found;
  }

  explain(repository: Repository): readonly string[] {
    return this.#inner.explain?.(repository) ?? [];
  }
}

interface AskOptions extends RegistryCheckOptions {
  /** For errors: `read base "gcr.io/app:1"`. */
  readonly action: string;
  readonly context: CheckContext;
  readonly keychain: Keychain;
  /** Whether the right to push is asked for. That there is no such manifest is no error then. */
  readonly push: boolean;
}

/**
 * Asks for a manifest, without its content.
 *
 * @returns whether the registry's token gives the right to push; undefined if there is none, or it does not tell
 * @throws {KoError} If the registry does not answer or refuses, or a source of credentials fails.
 */
async function ask(repository: Repository, reference: string, options: AskOptions): Promise<boolean | undefined> {
  const { action, context, insecureHosts, keychain, push, rules, userAgent } = options;
  const { host, log, signal } = context;
  const { env } = host;
  const secrets = new Secrets();
  const clock = systemClock;
  using http = new Http({ log, signal, userAgent, env, insecureHosts, rules, secrets, clock, deadlines: DEADLINES });
  const connection = new Connection({
    http,
    host: repository.host,
    keychain,
    trusted: env["KO_TOKEN_HOSTS"] ?? "",
    signal,
  });
  const send = async (method: "GET" | "HEAD"): Promise<void> => {
    const response = await connection.send({
      method,
      target: `/v2/${repository.path}/manifests/${reference}`,
      repository,
      action,
      push,
      accept: push ? [200, 404] : [200],
      headers: { accept: ACCEPT },
    });
    await response.discard();
  };
  try {
    await send("HEAD");
  } catch (error) {
    // The answer to a HEAD has no body, so a GET asks for the reason (docs/rules.md A3.3).
    if (!(error instanceof RegistryError) || error.method !== "HEAD" || error.status === undefined) throw error;
    await send("GET");
  }
  if (!push) return undefined;
  try {
    // The token that was used: it is kept for the repository.
    return mayPush((await connection.token({ repository, action, push })).value, repository);
  } catch (error) {
    signal.throwIfAborted();
    // The registry wants no token.
    if (error instanceof KoError) return undefined;
    throw error;
  }
}

/**
 * Reads the rights in a token: a server that may not give a right leaves it out, and says so nowhere else. Undefined if the
 * token does not tell. https://distribution.github.io/distribution/spec/auth/jwt/
 */
function mayPush(token: string, { path }: Repository): boolean | undefined {
  const value = parseJson(Buffer.from(token.split(".")[1] ?? "", "base64url").toString("utf8"));
  const access: unknown = isObject(value) ? value["access"] : undefined;
  if (!Array.isArray(access)) return undefined;
  return access.filter(isObject).some(({ actions, name, type }) => {
    const isOurs = type === "repository" && name === path && Array.isArray(actions);
    return isOurs && actions.some((each) => each === "push" || each === "*");
  });
}
