/**
 * Turns a registry's refusal into an error: status, error codes, a few lines of its text, and a hint.
 *
 * The body of a refusal is foreign text: it is bounded, and secrets and control characters are taken out. Of the bodies of
 * endpoints that give out credentials only well-known error codes are shown. Rules: docs/rules.md A2.5, A7.2, A7.7, B6.4,
 * E6, E7.
 *
 * https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes
 */
import { parseRetryAfter } from "./async.ts";
import { RegistryError } from "./errors.ts";
import type { Http, HttpResponse } from "./http.ts";
import { isObject, parseJson } from "./json.ts";
import type { Repository } from "./reference.ts";
import { createCommand, loginCommand } from "./registry-clouds.ts";
import type { Secrets } from "./url.ts";

/** The part of a request that its refusal mentions. */
export interface RefusedRequest {
  /** The caller's task: `push layer sha256:… to "host/app"`. */
  readonly action: string;
  readonly repository: Repository;
  /** Whether the request needs the right to push. */
  readonly push: boolean;
}

export interface RefusalOptions {
  readonly request: RefusedRequest;
  /** The host to log in to: `host[:port]`. */
  readonly host: string;
  readonly http: Pick<Http, "clock" | "secrets">;
  /** Source of the credential that was sent; undefined if none was. */
  readonly source: string | undefined;
  /** Why there was no credential, or why it was not sent. */
  readonly reasons: readonly string[];
  /** True for an endpoint that gives out credentials: the body may hold one that nothing knows. @default false */
  readonly isSecret?: boolean;
}

/** The code of a token that lacks a right, of RFC 6750, in the spelling of a registry's codes. */
const INSUFFICIENT_SCOPE = "INSUFFICIENT_SCOPE";
const SCOPE_ERROR = /\berror="?insufficient_scope\b/;
const MAX_ERROR_BYTES = 64 * 1024;
const ALWAYS_FINAL: readonly number[] = [401, 403, 405, 413, 415];
const TRANSIENT: readonly number[] = [408, 425, 429, 499];
const FINAL_SERVER_ERRORS: readonly number[] = [501, 505, 507];
const TRANSIENT_CODES: readonly string[] = ["BLOB_UPLOAD_INVALID", "TOOMANYREQUESTS", "UNKNOWN", "UNAVAILABLE"];

/** The codes of errors that may be shown, whatever else the body of a credential endpoint holds. */
const KNOWN_CODES: ReadonlySet<string> = new Set(
  [
    // OAuth 2.0: RFC 6749 (4.1.2.1, 5.2), RFC 8628 (3.5), RFC 8693 (2.2.2), RFC 6750 (3.1).
    "invalid_request invalid_client invalid_grant unauthorized_client unsupported_grant_type invalid_scope",
    "access_denied unsupported_response_type server_error temporarily_unavailable invalid_target invalid_token",
    "authorization_pending slow_down expired_token insufficient_scope interaction_required invalid_resource",
    "admin_policy_enforced disabled_client deleted_client org_internal consent_required login_required",
    // The distribution spec, and what registries add to it.
    "BLOB_UNKNOWN DENIED NAME_INVALID NAME_UNKNOWN TOOMANYREQUESTS UNAUTHORIZED UNAVAILABLE UNKNOWN UNSUPPORTED",
    "FORBIDDEN NOT_FOUND METHOD_NOT_ALLOWED BAD_REQUEST",
    // google.rpc.Code.
    "ABORTED ALREADY_EXISTS CANCELLED DEADLINE_EXCEEDED FAILED_PRECONDITION INTERNAL INVALID_ARGUMENT OUT_OF_RANGE",
    "PERMISSION_DENIED RESOURCE_EXHAUSTED UNAUTHENTICATED UNIMPLEMENTED",
    // AWS: errors common to all services, of STS, of the container and instance services, of single sign-on.
    "AccessDenied AccessDeniedException ExpiredToken ExpiredTokenException IDPCommunicationError IDPRejectedClaim",
    "IncompleteSignature InternalFailure InvalidAction InvalidAuthorizationMessageException InvalidClientTokenId",
    "InvalidIdentityToken InvalidIdentityTokenException InvalidParameterException InvalidParameterValue",
    "InvalidSignatureException MalformedPolicyDocument MissingAction MissingAuthenticationToken",
    "MissingAuthenticationTokenException NotAuthorized OptInRequired PackedPolicyTooLarge RegionDisabledException",
    "RequestExpired ResourceNotFoundException ServerException ServiceUnavailable SignatureDoesNotMatch Throttling",
    "ThrottlingException TooManyRequestsException UnauthorizedException UnrecognizedClientException ValidationError",
    "ForbiddenException InvalidRequestException InternalServerException",
  ].flatMap((line) => line.split(" ")),
);

/** Whether a text from the body of a credential endpoint is an error code, and so no secret. */
export function isKnownCode(text: string): boolean {
  return KNOWN_CODES.has(text) || /^AADSTS\d{4,9}$/.test(text);
}

/** Reads the body of a refusal and returns the error for it. */
export async function readRefusal(response: HttpResponse, options: RefusalOptions): Promise<RegistryError> {
  const { status, method } = response;
  const { http, request } = options;
  const body = await (options.isSecret === true ? readCodes(response) : readBody(response, http.secrets));
  const { text } = body;
  const isScoped = status === 401 && SCOPE_ERROR.test(response.headers.get("www-authenticate") ?? "");
  const codes = isScoped ? [...body.codes, INSUFFICIENT_SCOPE] : body.codes;
  const said = [codes.join(", "), text].filter((part) => part !== "").join(": ");
  const who = status === 401 || status === 403 || status === 404 ? describeCredential(options) : "";
  const url = response.shownUrl;
  const message = `Cannot ${request.action}: ${method} ${url} answered ${status}${said === "" ? "" : ` (${said})`}${who}`;
  return new RegistryError(message, {
    method,
    url,
    status,
    codes,
    retry: isTransient(status, codes) ? "often" : "never",
    retryAfter: parseRetryAfter(response.headers.get("retry-after"), http.clock.now()),
    hint: adviseOn({ status, codes, text }, options),
  });
}

/** Whether a registry refused a token for lack of a right; it answers 401 then, as for a missing token. */
export function lacksScope(error: unknown): boolean {
  return error instanceof RegistryError && error.status === 401 && error.codes.includes(INSUFFICIENT_SCOPE);
}

/** Whether a registry does not show something to a token that may push, but not read. */
export function mayNotRead(error: unknown): boolean {
  return lacksScope(error) || (error instanceof RegistryError && error.status === 403);
}

/** Whether a registry answered with success, but about something else than it was sent or asked for. */
export function isFalseClaim({ status }: RegistryError): boolean {
  return status !== undefined && status >= 200 && status < 300;
}

/** Whether the same request may succeed later. */
function isTransient(status: number, codes: readonly string[]): boolean {
  // Registries behind some firewalls and load balancers limit the rate with 403.
  if (status === 403 && codes.length > 0 && codes.every((code) => code === "TOOMANYREQUESTS")) return true;
  if (ALWAYS_FINAL.includes(status)) return false;
  if (TRANSIENT.includes(status)) return true;
  if (status >= 500) return !FINAL_SERVER_ERRORS.includes(status);
  return codes.length > 0 && codes.every((code) => TRANSIENT_CODES.includes(code));
}

function describeCredential({ host, reasons, source }: RefusalOptions): string {
  if (source !== undefined) return `, with the credential from ${source}`;
  return `, without a credential: ${reasons.length === 0 ? `there is none for ${host}` : reasons.join("; ")}`;
}

interface ErrorBody {
  readonly codes: readonly string[];
  readonly text: string;
}

/** Reads `{"errors":[{"code","message","detail"}]}`, or the title of an HTML page, or plain text. */
async function readBody(response: HttpResponse, secrets: Secrets): Promise<ErrorBody> {
  if (response.method === "HEAD") {
    await response.discard();
    return { codes: [], text: "a HEAD response has no body with the reason" };
  }
  const bytes = await response.bytes(MAX_ERROR_BYTES).catch(() => new Uint8Array(0));
  if (bytes === undefined) return { codes: [], text: `its error body is longer than ${MAX_ERROR_BYTES / 1024} KiB` };
  const body = new TextDecoder().decode(bytes).trim();
  const errors = parseErrors(body);
  if (errors === undefined) {
    const isHtml = response.mediaType === "text/html" || body.startsWith("<");
    return { codes: [], text: secrets.excerpt(isHtml ? (/<title>([^<]*)<\/title>/i.exec(body)?.[1] ?? "") : body) };
  }
  const codes = errors.map(({ code }) => code).filter((code) => /^[A-Z][A-Z0-9_]{0,63}$/.test(code));
  const messages = errors.map(({ message }) => message).filter((message) => message !== "");
  return { codes: [...new Set(codes)].slice(0, 5), text: secrets.excerpt([...new Set(messages)].join("\n")) };
}

/** Reads the well-known error codes alone: `{"error"}` of OAuth, `{"errors":[{"code"}]}` of registries. */
async function readCodes(response: HttpResponse): Promise<ErrorBody> {
  const bytes = (await response.bytes(MAX_ERROR_BYTES).catch(() => undefined)) ?? new Uint8Array(0);
  const body = new TextDecoder().decode(bytes);
  const value = parseJson(body);
  const error = isObject(value) ? value["error"] : undefined;
  const all = [...(parseErrors(body) ?? []).map(({ code }) => code), ...(typeof error === "string" ? [error] : [])];
  return { codes: [...new Set(all.filter(isKnownCode))].slice(0, 5), text: "" };
}

function parseErrors(body: string): readonly { code: string; message: string }[] | undefined {
  const value = parseJson(body);
  const list: unknown = isObject(value) ? value["errors"] : undefined;
  if (!Array.isArray(list)) return undefined;
  const errors: readonly unknown[] = list;
  const text = (item: unknown): string => (typeof item === "string" ? item : "");
  return errors.filter(isObject).map((error) => ({ code: text(error["code"]), message: text(error["message"]) }));
}

function adviseOn(
  { status, codes, text }: ErrorBody & { readonly status: number },
  { host, request, source }: RefusalOptions,
): string | undefined {
  const { push, repository } = request;
  const login = loginCommand(host);
  const missing = codes.includes("NAME_UNKNOWN") || (push && status === 404 && codes.length === 0);
  if (push && missing) {
    const command = createCommand(host, repository.path);
    if (command !== undefined) return `Create the repository, which a push to ECR does not: ${command}`;
    return `Create the repository "${repository.path}" at ${host} first, or check KO_DOCKER_REPO.`;
  }
  if (status === 401 || (status === 403 && source === undefined)) return `Log in: ${login}`;
  if (status === 403 && push) {
    return `Create the repository "${repository.path}" if it does not exist, or log in as a user who may push: ${login}`;
  }
  if (status === 403) return `Log in as a user who may read it: ${login}`;
  if (status === 404) return "Check the name and the tag of the image.";
  if (status === 412 || codes.includes("TAG_INVALID") || /immutable/i.test(text)) {
    return "The registry does not allow moving this tag: choose another one with -t.";
  }
  if (status === 413) {
    return "Raise the upload limit of the proxy in front of the registry (nginx: client_max_body_size).";
  }
  if (status === 429 && source === undefined) return `Wait, or log in for a higher limit: ${login}`;
  return undefined;
}
