/**
 * Credentials for Google's registries: an access token of the Application Default Credentials, or of gcloud.
 *
 * Identities of other clouds are in registry-keychain-google-external.ts. Rules: docs/rules.md B3.
 *
 * https://cloud.google.com/docs/authentication/application-default-credentials
 */
import { createPrivateKey, sign } from "node:crypto";
import { join } from "node:path";
import { messageOf } from "./errors.ts";
import { isObject, parseJson } from "./json.ts";
import {
  type CloudCredential,
  type CloudProvider,
  type CloudRequest,
  type CloudSearch,
  type NoCredential,
  Renewed,
} from "./registry-keychain-cloud.ts";
import {
  checkGoogleUrl,
  type Fields,
  type GoogleToken,
  readGoogleToken,
  readText,
} from "./registry-keychain-google-token.ts";
import { findLiteral, findRange, isLoopback } from "./url.ts";

const SCOPE = "https://www.googleapis.com/auth/cloud-platform";
const TOKEN_URL = "https://oauth2.googleapis.com/token";
/** The token URLs of old keys, which stand for {@link TOKEN_URL}. */
const OLD_TOKEN_URLS: readonly unknown[] = [
  "https://accounts.google.com/o/oauth2/token",
  "https://www.googleapis.com/oauth2/v3/token",
  "https://www.googleapis.com/oauth2/v4/token",
];
const METADATA_HOST = "169.254.169.254";
const METADATA_LIMIT_MS = 500;
const LIFE_S = 3600;

/** The provider for Google's registries. It gets one token for all of them, and another when it has expired. */
export function googleProvider(): CloudProvider {
  const tokens = new Renewed<GoogleToken>();
  return {
    name: "Google",
    find: async (_host, search): Promise<CloudCredential | NoCredential> => {
      const found = await tokens.get(search, () => findToken(search));
      if ("none" in found) return found;
      const { expires, source, value } = found;
      const credential = { kind: "basic", username: "_token", password: value } as const;
      return { credential, source: `Google, with the token of ${source}`, expires };
    },
  };
}

/** As the original: gcloud is asked also if the default credentials fail. */
async function findToken(search: CloudSearch): Promise<GoogleToken | NoCredential> {
  let tried: NoCredential | undefined;
  let failure: unknown;
  try {
    const found = await findDefaultToken(search);
    if (!("none" in found)) return found;
    tried = found;
  } catch (error) {
    if (search.host.signal.aborted) throw error;
    search.debug(messageOf(error));
    failure = error;
  }
  const gcloud = search.findProgram("gcloud");
  if (gcloud !== undefined) {
    try {
      return await askGcloud(gcloud, search);
    } catch (error) {
      throw failure ?? error;
    }
  }
  if (tried === undefined) throw failure;
  return { none: [...tried.none, "gcloud is not on PATH"] };
}

/** @throws {KoError} If there are default credentials, but they are not usable. */
async function findDefaultToken(search: CloudSearch): Promise<GoogleToken | NoCredential> {
  const named = search.host.env["GOOGLE_APPLICATION_CREDENTIALS"];
  if (named) {
    const text = await search.read(named, "GOOGLE_APPLICATION_CREDENTIALS");
    return useFile(text, { path: named, search });
  }
  const path = defaultPath(search);
  if (path !== undefined && (await Bun.file(path).exists())) {
    return useFile(await search.read(path, "the file"), { path, search });
  }
  const machine = await askMachine(search);
  if (!("none" in machine)) return machine;
  const file = path === undefined ? [] : [`${path} does not exist`];
  return { none: ["GOOGLE_APPLICATION_CREDENTIALS is not set", ...file, ...machine.none] };
}

function defaultPath({ host }: CloudSearch): string | undefined {
  const { env, platform } = host;
  const name = "application_default_credentials.json";
  if (env["CLOUDSDK_CONFIG"]) return join(env["CLOUDSDK_CONFIG"], name);
  if (platform === "win32") return env["APPDATA"] ? join(env["APPDATA"], "gcloud", name) : undefined;
  return env["HOME"] ? join(env["HOME"], ".config", "gcloud", name) : undefined;
}

async function useFile(
  text: string,
  { path, search }: { readonly path: string; readonly search: CloudSearch },
): Promise<GoogleToken> {
  const fields = parseJson(text);
  if (!isObject(fields)) throw search.fail(`${path} is not a JSON object`);
  return useFields(fields, { path, search });
}

interface UseOptions {
  readonly path: string;
  readonly search: CloudSearch;
}

/** Gets a token with the credentials of a JSON file. */
async function useFields(fields: Fields, options: UseOptions): Promise<GoogleToken> {
  const { path, search } = options;
  switch (fields["type"]) {
    case "service_account":
      return useKey(fields, options);
    case "authorized_user":
      return useRefreshToken(fields, options);
    case "external_account": {
      const { useExternalAccount } = await import("./registry-keychain-google-external.ts");
      return useExternalAccount(fields, { ...options, scope: SCOPE });
    }
    case "impersonated_service_account": {
      const { impersonate } = await import("./registry-keychain-google-external.ts");
      const source = fields["source_credentials"];
      if (!isObject(source)) throw search.fail(`${path} has no source_credentials`);
      if (source["type"] === "impersonated_service_account") throw search.fail(`${path} impersonates twice`);
      return impersonate(await useFields(source, options), { ...options, fields, scope: SCOPE });
    }
    default:
      throw search.fail(`${path} has credentials of a type that ko does not know`);
  }
}

/** https://developers.google.com/identity/protocols/oauth2/service-account#httprest */
async function useKey(fields: Fields, { path, search }: UseOptions): Promise<GoogleToken> {
  const text = (name: string): string => readText(fields, { name, path, search });
  const [email, key] = [text("client_email"), text("private_key")];
  const named = fields["token_uri"] ?? TOKEN_URL;
  const isOld = OLD_TOKEN_URLS.includes(named);
  const url = isOld ? new URL(TOKEN_URL) : checkGoogleUrl(named, { name: "token_uri", path, search });
  const seconds = Math.floor(search.now() / 1000);
  const id = fields["private_key_id"];
  const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const header = encode({ alg: "RS256", typ: "JWT", ...(typeof id === "string" ? { kid: id } : {}) });
  const claims = encode({ iss: email, scope: SCOPE, aud: url.href, iat: seconds, exp: seconds + LIFE_S });
  let signature: Buffer;
  try {
    signature = sign("sha256", Buffer.from(`${header}.${claims}`), createPrivateKey(key));
  } catch {
    // No cause: it may quote the key.
    throw search.fail(`the private_key in ${path} is not a private key in PEM`);
  }
  const assertion = `${header}.${claims}.${signature.toString("base64url")}`;
  search.secrets.add(key, assertion);
  const request: CloudRequest = {
    method: "POST",
    url,
    body: { grant_type: "urn:ietf:params:oauth:grant-type:jwt-bearer", assertion },
    sent: `with the key of ${email} in ${path}`,
  };
  return readGoogleToken(request, { search, source: `${email} in ${path}` });
}

/** The login of `gcloud auth application-default login`. */
async function useRefreshToken(fields: Fields, { path, search }: UseOptions): Promise<GoogleToken> {
  const text = (name: string): string => readText(fields, { name, path, search });
  const body = {
    grant_type: "refresh_token",
    client_id: text("client_id"),
    client_secret: text("client_secret"),
    refresh_token: text("refresh_token"),
  };
  search.secrets.add(body.client_secret, body.refresh_token);
  const request: CloudRequest = { method: "POST", url: new URL(TOKEN_URL), body, sent: `with the login in ${path}` };
  return readGoogleToken(request, { search, source: path });
}

/** https://cloud.google.com/compute/docs/access/authenticate-workloads#applications */
async function askMachine(search: CloudSearch): Promise<GoogleToken | NoCredential> {
  const host = search.host.env["GCE_METADATA_HOST"] || METADATA_HOST;
  const text = `http://${host}/computeMetadata/v1/instance/service-accounts/default/token`;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || url.host !== host.toLowerCase() || !isMetadataHost(url)) {
    throw search.fail("GCE_METADATA_HOST is not an address of the metadata server");
  }
  url.search = new URLSearchParams({ scopes: SCOPE }).toString();
  const headers = { "metadata-flavor": "Google" };
  const request: CloudRequest = { method: "GET", url, headers, isLocal: true, limit: METADATA_LIMIT_MS };
  const none = { none: [`no metadata server of Google answers at ${host}`] };
  try {
    const response = await search.send(request);
    if (response.headers.get("metadata-flavor") !== "Google") return none;
    if (response.status === 404) return { none: ["the machine has no service account"] };
    return await readGoogleToken(request, { search, source: "the machine's service account", response });
  } catch (error) {
    if (search.host.signal.aborted) throw error;
    return none;
  }
}

function isMetadataHost(url: URL): boolean {
  const literal = findLiteral(url.hostname);
  const range = literal === undefined ? undefined : findRange(literal);
  return url.hostname === "metadata.google.internal" || range === "link-local" || isLoopback(url.host);
}

async function askGcloud(gcloud: string, search: CloudSearch): Promise<GoogleToken> {
  const argv = [gcloud, "config", "config-helper", "--force-auth-refresh", "--format=json(credential)"] as const;
  const value = parseJson(await search.run(argv, { shown: "gcloud config config-helper" }));
  const credential = isObject(value) ? value["credential"] : undefined;
  const token = isObject(credential) ? credential["access_token"] : undefined;
  if (!isObject(credential) || typeof token !== "string" || token === "") {
    throw search.fail("gcloud config config-helper printed no token", "gcloud auth login");
  }
  search.secrets.add(token);
  const expires = Date.parse(String(credential["token_expiry"]));
  return { value: token, source: "gcloud", expires: Number.isNaN(expires) ? undefined : expires };
}
