/**
 * Turns a failed exchange into an error: what failed, whether another attempt can help, and what to type.
 *
 * The words of `fetch` are not shown as they are: they may quote the URL. Rules: docs/rules.md A7.3, A7.10, A11.10.
 */
import { codeOf, KoError, messageOf, RegistryError } from "./errors.ts";
import { isLoopback, type Secrets } from "./url.ts";

/** The exchange that failed. */
export interface FailedExchange {
  readonly request: { readonly action: string; readonly method: string };
  readonly url: URL;
  /** The URL for messages. */
  readonly shown: string;
  readonly secrets: Secrets;
  /** The missing progress that ended the exchange; undefined if none did. */
  readonly stalled: string | undefined;
  /** Whether the host has used up the time that it may be silent. */
  readonly isSilent: boolean;
  /** The URL of the proxy, or false for none. */
  readonly proxy: string | false;
  /** Why a SOCKS5 proxy did not connect; undefined if it did, or there is none. */
  readonly proxyFailure: string | undefined;
}

type Retry = RegistryError["retry"];

/** The error for a failure of `fetch`. */
export function explainFailure(error: unknown, exchange: FailedExchange): KoError {
  if (error instanceof KoError) return error;
  const { isSilent, proxy, proxyFailure, request, secrets, shown, stalled, url } = exchange;
  const fail = (why: string, retry: Retry, hint?: string): RegistryError =>
    new RegistryError(`Cannot ${request.action}: ${request.method} ${shown}: ${why}`, {
      method: request.method,
      url: shown,
      retry,
      hint,
    });
  if (stalled !== undefined) return fail(stalled, isSilent ? "never" : "once");
  const code = codeOf(error) ?? "";
  const name = proxy === false ? "" : nameProxy(proxy);
  const through = proxy === false ? "" : ` through ${name}`;
  if (proxyFailure !== undefined) return fail(`${name} cannot connect: ${proxyFailure}`, "once", checkProxy(url));
  if (
    code.includes("PROXY") ||
    code === "UnsupportedProxyProtocol" ||
    (proxy !== false && code === "ERR_INVALID_ARG_VALUE")
  ) {
    return fail(...explainProxy(error, { code, name, proxy, url }));
  }
  if (code === "CERT_HAS_EXPIRED" || code === "CERT_NOT_YET_VALID") {
    const why = code === "CERT_HAS_EXPIRED" ? "has expired" : "is not valid yet";
    return fail(`its certificate ${why} (${code})`, "never", "Check the clock of this machine: date");
  }
  if (/CERT|SELF_SIGNED|UNABLE_TO_|ALTNAME|HOSTNAME_MISMATCH/.test(code)) {
    const hint = `Set SSL_CERT_FILE to the CA's PEM file, or ca of ${url.host} in registries of .ko.yaml. --insecure-registry checks nothing.`;
    return fail(`its certificate is not trusted (${code})`, "never", hint);
  }
  switch (code) {
    case "ENOTFOUND":
      return fail(`the host name is not known${through} (${code})`, "never", "Check the name of the registry.");
    case "EPROTO":
      return fail(
        `it does not speak TLS on this port (${code})`,
        "never",
        "For a plain HTTP registry: --insecure-registry",
      );
    case "ECONNREFUSED":
      // A registry of this machine may be starting.
      return fail(
        `nothing listens there${through} (${code})`,
        isLoopback(url.host) ? "soon" : "once",
        proxy === false ? `Is ${url.host} running? Start it, or correct its name.` : checkProxy(url),
      );
    case "ECONNRESET":
    case "ECONNABORTED":
    case "EPIPE":
    case "EAI_AGAIN":
    case "ETIMEDOUT":
    case "ENETUNREACH":
    case "EHOSTUNREACH":
      return fail(`the connection failed${through} (${code})`, "often");
    default: {
      const text = messageOf(error).replace(/ ?For more information, pass `verbose: true`.*$/s, "");
      return fail(`${secrets.excerpt(text)}${through}`, "once");
    }
  }
}

/** Whether a proxy refused a request for want of a password. */
export function wantsPassword(error: unknown): boolean {
  return error instanceof Error && "status" in error && error.status === 407;
}

/** Whether a connection was closed before it answered. */
export function isClosed(error: unknown): boolean {
  return ["ECONNRESET", "ECONNABORTED", "EPIPE"].includes(codeOf(error) ?? "");
}

interface FailedProxy {
  readonly code: string;
  readonly name: string;
  readonly proxy: string | false;
  readonly url: URL;
}

function explainProxy(error: unknown, { code, name, proxy, url }: FailedProxy): readonly [string, Retry, string] {
  const status = error instanceof Error && "status" in error ? error.status : undefined;
  if (wantsPassword(error)) {
    const given = proxy !== false && URL.canParse(proxy) && new URL(proxy).username !== "";
    const why = given ? "refuses the user and password of its URL" : "wants a user and a password";
    return [`${name} ${why} (407)`, "never", `Set ${variableFor(url)}=http://USER:PASSWORD@HOST:PORT`];
  }
  const why = typeof status === "number" ? `refused the connection (${status})` : `cannot be used (${code})`;
  // A proxy answers 502 to 504 if it does not reach the server.
  const isPassing = typeof status === "number" && status >= 502 && status <= 504;
  return [`${name} ${why}`, isPassing ? "once" : "never", checkProxy(url)];
}

function checkProxy(url: URL): string {
  return `Check ${variableFor(url)} and NO_PROXY.`;
}

function variableFor({ protocol }: URL): string {
  return protocol === "https:" ? "HTTPS_PROXY" : "HTTP_PROXY";
}

/** Without the user and the password. */
function nameProxy(proxy: string): string {
  return URL.canParse(proxy) ? `the proxy ${new URL(proxy).host}` : "the proxy";
}
