/**
 * Fetches a URL given by `-f`, with one attempt and without a cache.
 *
 * `https` is allowed for every host, `http` only for loopback, and redirects obey the same rules. Messages show neither
 * user info nor query values, which can be secret (docs/rules.md B6).
 */
import { codeOf, KoError } from "./errors.ts";
import type { Host } from "./host.ts";
import { StallGuard } from "./http-transfer.ts";
import { chooseProxy, findLiteral, findRange, isLoopback, redactUrl } from "./url.ts";

export interface FetchInputOptions {
  readonly host: Host;
  readonly signal: AbortSignal;
  /** The maximum size after decompression. @default 64 MiB */
  readonly maxBytes?: number;
  /** The timeout for the next byte, in milliseconds. @default 30,000 */
  readonly idleTimeout?: number;
}

const MAX_BYTES = 64 * 1024 * 1024;
const IDLE_TIMEOUT_MS = 30_000;
const MAX_REDIRECTS = 10;

/**
 * Fetches the bytes at a URL.
 *
 * @throws {KoError} If the URL is not allowed, or the response is not 200, too large, a web page, or times out.
 */
export async function fetchInput(text: string, options: FetchInputOptions): Promise<Uint8Array> {
  const { maxBytes = MAX_BYTES, idleTimeout = IDLE_TIMEOUT_MS } = options;
  const shown = redactUrl(text);
  if (!URL.canParse(text)) throw new KoError(`Cannot read "${shown}": it is not a URL`);
  const fail = (why: string, hint?: string): KoError =>
    new KoError(`Cannot read "${shown}": ${why}`, { hint, transient: true });
  const guard = new StallGuard([options.signal]);
  try {
    let url = new URL(text);
    for (let redirects = 0; ; redirects++) {
      const why = whyRefused(url, new URL(text));
      if (why !== undefined) throw fail(redirects === 0 ? why : `it redirects to "${redactUrl(url)}", and ${why}`);
      if (redirects > MAX_REDIRECTS) throw fail(`it redirects more than ${MAX_REDIRECTS} times`);
      guard.arm(idleTimeout, "no answer");
      const response = await request(url, { ...options, first: new URL(text), signal: guard.signal });
      const location = response.headers.get("location");
      if ([301, 302, 303, 307, 308].includes(response.status) && location !== null) {
        await response.body?.cancel();
        if (!URL.canParse(location, url.href)) throw fail("it redirects to a malformed URL");
        url = new URL(location, url);
        continue;
      }
      if (response.status !== 200) {
        await response.body?.cancel();
        throw fail(
          `the server answered ${response.status}${response.statusText && ` ${response.statusText}`}, wanted 200`,
        );
      }
      const bytes = await readBody(response, { guard, idleTimeout, maxBytes });
      if (bytes === undefined) throw fail(`it is more than ${maxBytes} bytes`);
      if (isWebPage(response, bytes)) {
        throw fail("it is a web page, wanted YAML", "Name the URL of the raw file.");
      }
      return bytes;
    }
  } catch (error) {
    if (error instanceof KoError) throw error;
    if (guard.aborted) throw guard.signal.reason;
    if (guard.stalled !== undefined) throw fail(guard.stalled);
    // The message of fetch is dropped, because it can quote the URL.
    const code = codeOf(error);
    throw fail(`the request failed${code === undefined ? "" : ` (${code})`}`);
  } finally {
    guard.end();
    guard.cancel();
  }
}

/** Returns the reason why `url`, to which `first` redirects, is not allowed. */
function whyRefused(url: URL, first: URL): string | undefined {
  if (url.protocol !== "https:" && !(url.protocol === "http:" && isLoopback(url.host))) {
    return "only https is allowed, or http to this machine";
  }
  if (url.host === first.host || isLoopback(first.host)) return undefined;
  // A server must not redirect ko to services that only this machine or network can reach.
  if (isLoopback(url.host)) return "that is this machine";
  const literal = findLiteral(url.hostname);
  const range = literal === undefined ? undefined : findRange(literal);
  return range === undefined ? undefined : `that is a ${range} address`;
}

interface RequestOptions {
  readonly host: Host;
  readonly first: URL;
  readonly signal: AbortSignal;
}

async function request(url: URL, { host, first, signal }: RequestOptions): Promise<Response> {
  const headers: Record<string, string> = { "user-agent": "ko", accept: "*/*" };
  // User name and password in the URL are for its origin only.
  if (url.origin === first.origin && (first.username !== "" || first.password !== "")) {
    const userinfo = `${decodeURIComponent(first.username)}:${decodeURIComponent(first.password)}`;
    headers["authorization"] = `Basic ${Buffer.from(userinfo).toString("base64")}`;
  }
  const bare = new URL(url);
  bare.username = "";
  bare.password = "";
  return fetch(bare, {
    headers,
    signal,
    redirect: "manual",
    keepalive: false,
    timeout: false,
    proxy: chooseProxy(url, host.env),
  });
}

interface ReadBodyOptions {
  readonly guard: StallGuard;
  readonly idleTimeout: number;
  readonly maxBytes: number;
}

/** Reads the whole body; returns undefined if it is too large. */
async function readBody(response: Response, options: ReadBodyOptions): Promise<Uint8Array | undefined> {
  const { guard, idleTimeout, maxBytes } = options;
  const chunks: Uint8Array[] = [];
  let size = 0;
  guard.arm(idleTimeout, "no byte came");
  for await (const chunk of response.body ?? []) {
    guard.arm(idleTimeout, "no byte came");
    size += chunk.byteLength;
    if (size > maxBytes) return undefined;
    chunks.push(chunk);
  }
  return new Uint8Array(Buffer.concat(chunks));
}

/** Reports whether a response is an HTML page, such as a login form, which kubectl would read as YAML. */
function isWebPage(response: Response, bytes: Uint8Array): boolean {
  const type = response.headers.get("content-type") ?? "";
  return /^text\/html\b/i.test(type) && /^\s*</.test(new TextDecoder().decode(bytes.subarray(0, 1024)));
}
