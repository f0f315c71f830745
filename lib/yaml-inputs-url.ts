/**
 * A file of `-f` that is a URL.
 *
 * `https` anywhere, `http` on this machine only, redirects within the same rules. No cache, one attempt. No message shows
 * userinfo or a query: they may be secret (rules.md B6).
 */
import { KoError } from "./errors.ts";
import type { Host } from "./host.ts";
import { Watch } from "./http-transfer.ts";
import { chooseProxy, findLiteral, findRange, isLoopback, redactUrl } from "./url.ts";

export interface FetchInputOptions {
  readonly host: Host;
  readonly signal: AbortSignal;
  /** @default 64 MiB, after decompression */
  readonly maxBytes?: number;
  /** Milliseconds without a byte. @default 30,000 */
  readonly patience?: number;
}

const MAX_BYTES = 64 * 1024 * 1024;
const PATIENCE_MS = 30_000;
const MAX_REDIRECTS = 10;

/** Whether `-f` means a URL by this. */
export function isUrl(text: string): boolean {
  return /^https?:\/\//i.test(text);
}

/**
 * The bytes at a URL.
 *
 * @throws {KoError} If the URL may not be asked, the answer is not 200, too large, a web page, or does not come.
 */
export async function fetchInput(text: string, options: FetchInputOptions): Promise<Uint8Array> {
  const { maxBytes = MAX_BYTES, patience = PATIENCE_MS } = options;
  const shown = redactUrl(text);
  const fail = (why: string, hint?: string): KoError => new KoError(`Cannot read "${shown}": ${why}`, { hint });
  if (!URL.canParse(text)) throw fail("it is no URL");
  const watch = new Watch([options.signal]);
  try {
    let url = new URL(text);
    for (let redirects = 0; ; redirects++) {
      const why = whyRefused(url, new URL(text));
      if (why !== undefined) throw fail(redirects === 0 ? why : `it leads to "${redactUrl(url)}", and ${why}`);
      if (redirects > MAX_REDIRECTS) throw fail(`it leads on more than ${MAX_REDIRECTS} times`);
      watch.arm(patience, "no answer");
      const response = await request(url, { ...options, first: new URL(text), signal: watch.signal });
      const location = response.headers.get("location");
      if ([301, 302, 303, 307, 308].includes(response.status) && location !== null) {
        await response.body?.cancel();
        if (!URL.canParse(location, url.href)) throw fail("it leads to what is no URL");
        url = new URL(location, url);
        continue;
      }
      if (response.status !== 200) {
        await response.body?.cancel();
        throw fail(`the answer is ${response.status}${response.statusText && ` ${response.statusText}`}, wanted 200`);
      }
      const bytes = await readBody(response, { watch, patience, maxBytes });
      if (bytes === undefined) throw fail(`it is more than ${maxBytes} bytes`);
      if (isWebPage(response, bytes)) {
        throw fail("it is a web page, wanted YAML", "Name the raw file: the page shows it with much around it.");
      }
      return bytes;
    }
  } catch (error) {
    if (error instanceof KoError) throw error;
    if (watch.aborted) throw watch.signal.reason;
    if (watch.stalled !== undefined) throw fail(watch.stalled);
    // The message of fetch may quote the URL.
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    throw fail(`the server cannot be asked, or broke off${code && ` (${code})`}`);
  } finally {
    watch.end();
    watch.cancel();
  }
}

/** Why `url`, which `first` is or leads to, is not asked. */
function whyRefused(url: URL, first: URL): string | undefined {
  if (url.protocol !== "https:" && !(url.protocol === "http:" && isLoopback(url.host))) {
    return `only https is taken, or http on this machine`;
  }
  if (url.host === first.host || isLoopback(first.host)) return undefined;
  // A page on the network has no business to send us to this machine or this network.
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
  // What the user wrote into the URL is for that server alone.
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
  readonly watch: Watch;
  readonly patience: number;
  readonly maxBytes: number;
}

/** The whole body, or undefined if it is too large. */
async function readBody(response: Response, options: ReadBodyOptions): Promise<Uint8Array | undefined> {
  const { watch, patience, maxBytes } = options;
  const chunks: Uint8Array[] = [];
  let size = 0;
  watch.arm(patience, "no byte came");
  for await (const chunk of response.body ?? []) {
    watch.arm(patience, "no byte came");
    size += chunk.byteLength;
    if (size > maxBytes) return undefined;
    chunks.push(chunk);
  }
  return new Uint8Array(Buffer.concat(chunks));
}

/** A forge's page about a file, say, or a login form: kubectl would get it as YAML. */
function isWebPage(response: Response, bytes: Uint8Array): boolean {
  const type = response.headers.get("content-type") ?? "";
  return /^text\/html\b/i.test(type) && /^\s*</.test(new TextDecoder().decode(bytes.subarray(0, 1024)));
}
