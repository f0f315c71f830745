/**
 * A registry's refusal, as the error that a person reads: status, codes, a few lines of text, one thing to do.
 *
 * Rules: rules.md A2.5, A7.2, A7.7, E6, E7. The body of a refusal is foreign text: bounded, without secrets, never raw.
 *
 * https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes
 */
import { parseRetryAfter } from "./async.ts";
import { RegistryError } from "./errors.ts";
import type { HttpResponse } from "./http.ts";
import { isObject } from "./json.ts";
import { DOCKER_HUB, type Repository } from "./reference.ts";
import { redactUrl, type Secrets } from "./url.ts";

export interface RefusalOptions {
  /** What was tried: `push layer sha256:… to "host/app"`. */
  readonly action: string;
  readonly repository: Repository;
  /** Whether it needed the right to push. */
  readonly push: boolean;
  /** The host whose login counts. */
  readonly host: string;
  /** Source of the credential that was sent, or undefined. */
  readonly source: string | undefined;
  /** Why there was no credential, or why it was not sent. */
  readonly reasons: readonly string[];
  readonly secrets: Secrets;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

const MAX_ERROR_BYTES = 64 * 1024;
const ALWAYS_FINAL: readonly number[] = [401, 403, 405, 413, 415];
const TRANSIENT: readonly number[] = [408, 425, 429, 499];
const FINAL_SERVER_ERRORS: readonly number[] = [501, 505, 507];
const TRANSIENT_CODES: readonly string[] = ["BLOB_UPLOAD_INVALID", "TOOMANYREQUESTS", "UNKNOWN", "UNAVAILABLE"];

/** Reads what a refusing answer says (its body is used up) and makes the error of it. */
export async function readRefusal(response: HttpResponse, options: RefusalOptions): Promise<RegistryError> {
  const { status, method } = response;
  const { action, secrets } = options;
  const { codes, text } =
    method === "HEAD"
      ? { codes: [], text: "a HEAD answer has no body that says why" }
      : readErrorBody(
          await response.bytes(MAX_ERROR_BYTES).catch(() => new Uint8Array(0)),
          response.mediaType,
          secrets,
        );
  if (method === "HEAD") await response.discard();
  const said = [codes.join(", "), text].filter((part) => part !== "").join(": ");
  const who = status === 401 || status === 403 || status === 404 ? whoAsked(options) : "";
  const url = redactUrl(response.url);
  const message = `Cannot ${action}: ${method} ${url} answered ${status}${said === "" ? "" : ` (${said})`}${who}`;
  return new RegistryError(message, {
    method,
    url,
    status,
    codes,
    retry: isTransient(status, codes) ? "often" : "never",
    retryAfter: parseRetryAfter(response.headers.get("retry-after"), options.now),
    hint: adviseOn(status, codes, { ...options, text }),
  });
}

/** Whether the same request may be answered otherwise later. */
export function isTransient(status: number, codes: readonly string[]): boolean {
  if (ALWAYS_FINAL.includes(status)) return false;
  if (TRANSIENT.includes(status)) return true;
  if (status >= 500) return !FINAL_SERVER_ERRORS.includes(status);
  return codes.length > 0 && codes.every((code) => TRANSIENT_CODES.includes(code));
}

function whoAsked({ host, reasons, source }: RefusalOptions): string {
  if (source !== undefined) return `, with the credential from ${source}`;
  return `, without a credential: ${reasons.length === 0 ? `there is none for ${host}` : reasons.join("; ")}`;
}

/** `{"errors":[{"code","message","detail"}]}`, or whatever else came. */
function readErrorBody(
  bytes: Uint8Array | undefined,
  mediaType: string,
  secrets: Secrets,
): { readonly codes: readonly string[]; readonly text: string } {
  if (bytes === undefined) return { codes: [], text: `its explanation is longer than ${MAX_ERROR_BYTES / 1024} KiB` };
  const body = new TextDecoder().decode(bytes).trim();
  const errors = parseErrors(body);
  if (errors === undefined) {
    if (mediaType === "text/html" || body.startsWith("<")) {
      const title = /<title>([^<]*)<\/title>/i.exec(body)?.[1];
      return { codes: [], text: secrets.excerpt(title ?? "") };
    }
    return { codes: [], text: secrets.excerpt(body) };
  }
  const codes = errors.map(({ code }) => code).filter((code) => /^[A-Z][A-Z0-9_]{0,63}$/.test(code));
  const messages = errors.map(({ message }) => message).filter((message) => message !== "");
  return { codes: [...new Set(codes)].slice(0, 5), text: secrets.excerpt([...new Set(messages)].join("\n")) };
}

function parseErrors(body: string): readonly { code: string; message: string }[] | undefined {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    return undefined;
  }
  const list: unknown = isObject(value) ? value["errors"] : undefined;
  if (!Array.isArray(list)) return undefined;
  const errors: readonly unknown[] = list;
  const text = (item: unknown): string => (typeof item === "string" ? item : "");
  return errors.filter(isObject).map((error) => ({ code: text(error["code"]), message: text(error["message"]) }));
}

function adviseOn(
  status: number,
  codes: readonly string[],
  { host, push, repository, source, text }: RefusalOptions & { readonly text: string },
): string | undefined {
  const login = `docker login${host === DOCKER_HUB ? "" : ` ${host}`}`;
  const missing = codes.includes("NAME_UNKNOWN") || (push && status === 404 && codes.length === 0);
  if (push && missing) {
    return `Create the repository "${repository.path}" at ${host} first, or check KO_DOCKER_REPO.`;
  }
  if (status === 401 || (status === 403 && source === undefined)) return `Log in: ${login}`;
  if (status === 403 && push) {
    return `Create the repository "${repository.path}" if it does not exist, or log in as somebody who may push: ${login}`;
  }
  if (status === 403) return `Log in as somebody who may read it: ${login}`;
  if (status === 404) return "Check the name and the tag of the image.";
  if (status === 412 || codes.includes("TAG_INVALID") || /immutable/i.test(text)) {
    return "The registry does not let this tag move: choose another one with -t.";
  }
  if (status === 413)
    return "Raise the limit for uploads of the proxy before the registry (nginx: client_max_body_size).";
  if (status === 429 && source === undefined) return `Wait, or log in for a higher limit: ${login}`;
  return undefined;
}
