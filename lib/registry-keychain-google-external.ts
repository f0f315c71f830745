/**
 * Google tokens for identities of other systems: workload identity federation and impersonated service accounts.
 *
 * The writer of the file chooses its URLs, so secrets go to Google's token services only. Subject tokens of AWS and
 * client certificates are not supported. Rules: docs/rules.md B3.5.
 *
 * https://google.aip.dev/auth/4117
 */
import { isObject, parseJson } from "./json.ts";
import type { CloudRequest, CloudSearch } from "./registry-keychain-cloud.ts";
import {
  checkGoogleUrl,
  type Fields,
  type GoogleToken,
  readGoogleToken,
  readText,
} from "./registry-keychain-google-token.ts";
import { redactUrl } from "./url.ts";

export interface ExternalOptions {
  /** The file that the fields are from. */
  readonly path: string;
  readonly search: CloudSearch;
  /** The right that the token is for. */
  readonly scope: string;
}

const EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token";
const ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token";
/** GitHub Actions gives its tokens there. */
const SUBJECT_HOSTS = /^(?:[a-z0-9-]+\.)*actions\.githubusercontent\.com$/;
/** Azure's virtual machines get theirs there. */
const AZURE_METADATA = "http://169.254.169.254";
const METADATA_LIMIT_MS = 1000;
const LIFE = "3600s";

/**
 * Exchanges the token of another system.
 *
 * @throws {KoError} If the file is not usable, or Google refuses.
 */
export async function useExternalAccount(fields: Fields, options: ExternalOptions): Promise<GoogleToken> {
  const { path, scope, search } = options;
  const url = checkGoogleUrl(fields["token_url"], { name: "token_url", path, search });
  const text = (name: string): string => readText(fields, { name, path, search });
  const [audience, type] = [text("audience"), text("subject_token_type")];
  const impersonation = fields["service_account_impersonation_url"];
  // Checked before anything is sent.
  if (impersonation !== undefined) checkImpersonationUrl(impersonation, options);
  const subject = await readSubjectToken(fields, options);
  search.secrets.add(subject);
  const { client_id: client, client_secret: secret, workforce_pool_user_project: project } = fields;
  const hasClient = typeof client === "string" && typeof secret === "string";
  if (hasClient) search.secrets.add(secret, `${client}:${secret}`);
  const request: CloudRequest = {
    method: "POST",
    url,
    headers: hasClient
      ? {
          authorization: `Basic ${Buffer.from(`${encodeURIComponent(client)}:${encodeURIComponent(secret)}`).toString("base64")}`,
        }
      : {},
    body: {
      grant_type: EXCHANGE,
      audience,
      scope,
      requested_token_type: ACCESS_TOKEN,
      subject_token: subject,
      subject_token_type: type,
      ...(typeof project === "string" && !hasClient ? { options: JSON.stringify({ userProject: project }) } : {}),
    },
    sent: `with the identity in ${path}`,
  };
  const token = await readGoogleToken(request, { search, source: `the identity in ${path}` });
  return impersonation === undefined ? token : impersonate(token, { ...options, fields });
}

/**
 * Exchanges a token for one of the service account that `service_account_impersonation_url` names.
 *
 * @throws {KoError} If the URL is not one of Google, or Google refuses.
 */
export async function impersonate(
  token: GoogleToken,
  options: ExternalOptions & { readonly fields: Fields },
): Promise<GoogleToken> {
  const { fields, path, scope, search } = options;
  const url = checkImpersonationUrl(fields["service_account_impersonation_url"], options);
  const { delegates } = fields;
  const account = /([^/:]+):generateAccessToken$/.exec(decodeURIComponent(url.pathname))?.[1] ?? "a service account";
  const request: CloudRequest = {
    method: "POST",
    url,
    headers: { "content-type": "application/json", authorization: `Bearer ${token.value}` },
    body: JSON.stringify({ lifetime: LIFE, scope: [scope], ...(Array.isArray(delegates) ? { delegates } : {}) }),
    sent: `with the token of ${token.source} for ${account}`,
  };
  const { accessToken: value, expireTime } = await search.json(request);
  if (typeof value !== "string" || value === "") throw search.fail(`POST ${redactUrl(url)} answered without a token`);
  search.secrets.add(value);
  const expires = Date.parse(String(expireTime));
  return { value, source: `${account} in ${path}`, expires: Number.isNaN(expires) ? undefined : expires };
}

function checkImpersonationUrl(value: unknown, { path, search }: ExternalOptions): URL {
  return checkGoogleUrl(value, { name: "service_account_impersonation_url", path, search });
}

async function readSubjectToken(fields: Fields, options: ExternalOptions): Promise<string> {
  const { path, search } = options;
  const source = fields["credential_source"];
  if (!isObject(source)) throw search.fail(`${path} has no credential_source`);
  if (typeof source["file"] === "string") {
    return readFormat(await search.read(source["file"], "credential_source.file"), { source, path, search });
  }
  if (typeof source["url"] === "string") return askForSubjectToken(source, options);
  if (isObject(source["executable"])) return runExecutable(source["executable"], { fields, path, search });
  throw search.fail(`the credential_source in ${path} is neither a file, a URL nor an executable`);
}

interface SourceOptions {
  readonly path: string;
  readonly search: CloudSearch;
}

async function askForSubjectToken(source: Fields, { path, search }: SourceOptions): Promise<string> {
  const text = String(source["url"]);
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isLocal = url?.origin === AZURE_METADATA;
  const isKnown = isLocal || (url?.protocol === "https:" && url.port === "" && SUBJECT_HOSTS.test(url.hostname));
  if (url === undefined || !isKnown || url.username !== "") {
    throw search.fail(`the credential_source.url in ${path} is not one of GitHub Actions or Azure; use a file instead`);
  }
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(isObject(source["headers"]) ? source["headers"] : {})) {
    if (typeof value !== "string" || /[\r\n]/.test(value)) throw search.fail(`a header in ${path} is not one line`);
    headers[name.toLowerCase()] = value;
    search.secrets.add(value, value.replace(/^\S+ /, ""));
  }
  const request: CloudRequest = {
    method: "GET",
    url,
    headers,
    ...(isLocal ? { isLocal, limit: METADATA_LIMIT_MS } : {}),
  };
  const response = await search.send(request);
  if (response.status !== 200) throw search.refusal(request, response);
  return readFormat(response.text, { source, path, search });
}

/** The token in a text, or in a field of JSON. */
function readFormat(text: string, { path, search, source }: SourceOptions & { readonly source: Fields }): string {
  const format = isObject(source["format"]) ? source["format"] : {};
  if (format["type"] !== "json") return text.trim();
  const value = parseJson(text);
  const field = String(format["subject_token_field_name"]);
  const token = isObject(value) && Object.hasOwn(value, field) ? value[field] : undefined;
  if (typeof token !== "string" || token === "") {
    throw search.fail(`the credential_source in ${path} gave no subject_token_field_name`);
  }
  return token;
}

/** https://google.aip.dev/auth/4117#determining-the-subject-token-in-executable-sourced-credentials */
async function runExecutable(
  executable: Fields,
  { fields, path, search }: SourceOptions & { readonly fields: Fields },
): Promise<string> {
  const { env } = search.host;
  if (env["GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES"] !== "1") {
    const hint = "export GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1";
    throw search.fail(`${path} wants to run a program, which must be allowed`, hint);
  }
  const { command } = executable;
  const [program, ...rest] = typeof command === "string" ? command.split(/\s+/).filter(Boolean) : [];
  if (program === undefined) throw search.fail(`${path} has no credential_source.executable.command`);
  const shown = `the credential_source.executable in ${path}`;
  const account = /([^/:]+):generateAccessToken$/.exec(String(fields["service_account_impersonation_url"]))?.[1];
  const output = executable["output_file"];
  const stdout = await search.run([program, ...rest], {
    shown,
    env: {
      GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE: String(fields["audience"]),
      GOOGLE_EXTERNAL_ACCOUNT_TOKEN_TYPE: String(fields["subject_token_type"]),
      GOOGLE_EXTERNAL_ACCOUNT_INTERACTIVE: "0",
      ...(account === undefined ? {} : { GOOGLE_EXTERNAL_ACCOUNT_IMPERSONATED_EMAIL: account }),
      ...(typeof output === "string" ? { GOOGLE_EXTERNAL_ACCOUNT_OUTPUT_FILE: output } : {}),
    },
  });
  const value = parseJson(stdout);
  if (!isObject(value) || value["success"] !== true) throw search.fail(`${shown} did not succeed`);
  const token =
    value["token_type"] === ID_TOKEN || value["id_token"] !== undefined ? value["id_token"] : value["saml_response"];
  if (typeof token !== "string" || token === "") throw search.fail(`${shown} printed no token`);
  return token;
}
