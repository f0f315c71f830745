/**
 * Google's access tokens: where they may be asked for, and how the answers are read.
 *
 * Rules: docs/rules.md B3.3-B3.5.
 */
import { parseJson, isObject } from "./json.ts";
import type { CloudRequest, CloudResponse, CloudSearch } from "./registry-keychain-cloud.ts";
import { redactUrl } from "./url.ts";

export interface GoogleToken {
  readonly value: string;
  /** For messages: `ci@project.iam.gserviceaccount.com in /etc/key.json`. */
  readonly source: string;
  /** Milliseconds since the epoch; undefined if Google did not say. */
  readonly expires: number | undefined;
}

/** The fields of a file with credentials. */
export type Fields = Readonly<Record<string, unknown>>;

export interface FieldOptions {
  /** The field: `token_url`. */
  readonly name: string;
  /** The file. */
  readonly path: string;
  readonly search: CloudSearch;
}

/** Services that give tokens, also those of a region. Others, such as storage, belong to any customer of Google. */
const TOKEN_HOSTS =
  /^(?:oauth2|(?:[a-z0-9-]+-)?(?:sts|iamcredentials)|(?:sts|iamcredentials)\.[a-z0-9-]+\.rep)\.googleapis\.com$/;

/**
 * A URL from a file with credentials, which a secret is sent to.
 *
 * @throws {KoError} If it is not https, or not that of a token service of Google.
 */
export function checkGoogleUrl(value: unknown, { name, path, search }: FieldOptions): URL {
  const url = typeof value === "string" && URL.canParse(value) ? new URL(value) : undefined;
  if (url?.protocol !== "https:" || !TOKEN_HOSTS.test(url.host) || url.username !== "" || url.password !== "") {
    throw search.fail(`the ${name} in ${path} is not a token service of Google, so nothing was sent there`);
  }
  return url;
}

/** @throws {KoError} If the field is not a text. */
export function readText(fields: Fields, { name, path, search }: FieldOptions): string {
  const value = fields[name];
  if (typeof value !== "string" || value === "") throw search.fail(`${path} has no ${name}`);
  return value;
}

/**
 * Sends a request for a token.
 *
 * @param options.response the response, if the request was sent already
 * @throws {KoError} If it is refused, or the answer holds no token.
 */
export async function readGoogleToken(
  request: CloudRequest,
  options: { readonly search: CloudSearch; readonly source: string; readonly response?: CloudResponse },
): Promise<GoogleToken> {
  const { search, source } = options;
  const response = options.response ?? (await search.send(request));
  if (response.status !== 200) throw search.refusal(request, response);
  const answer = parseJson(response.text);
  const value = isObject(answer) ? answer["access_token"] : undefined;
  if (!isObject(answer) || typeof value !== "string" || value === "") {
    throw search.fail(`${request.method} ${redactUrl(request.url)} answered without a token`);
  }
  search.secrets.add(value);
  const seconds = answer["expires_in"];
  const expires = typeof seconds === "number" ? search.now() + seconds * 1000 : undefined;
  return { value, source, expires };
}
