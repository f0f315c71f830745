/**
 * Rules for URLs: where a request or a credential may go, by which proxy, and which parts of a URL may be shown.
 *
 * A registry names other hosts: token servers, upload locations, redirects, foreign layers. None of them may be this
 * machine, its cloud's metadata service or a private address literal, unless the registry itself is there.
 *
 * Rules: docs/rules.md A1.2-A1.4, A2.12-A2.14, A4.7, B6. Proxies: https://pkg.go.dev/net/http#ProxyFromEnvironment
 */
import { printable } from "./errors.ts";
import { isInBlock, parseAddress } from "./ip.ts";

/** A range of addresses that a public registry may not name. */
type AddressRange = "loopback" | "link-local" | "metadata" | "private" | "unspecified";

const RANGES: readonly (readonly [AddressRange, readonly string[]])[] = [
  ["loopback", ["127.0.0.0/8", "::1/128"]],
  ["metadata", ["100.100.100.200/32", "fd00:ec2::/32"]],
  ["link-local", ["169.254.0.0/16", "fe80::/10"]],
  ["private", ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"]],
  ["unspecified", ["0.0.0.0/8", "::/128"]],
];

/** Registries whose token server is under another domain, as [suffix of the registry's host, host of the server]. */
const TOKEN_SERVERS: readonly (readonly [string, string])[] = [
  ["nvcr.io", "authn.nvidia.com"],
  ["scw.cloud", "api.scaleway.com"],
];

/** Query parameters that hold no secrets; the values of all others are hidden. */
const SHOWN_PARAMETERS: ReadonlySet<string> = new Set(["scope", "service", "mount", "from", "digest", "n", "last"]);

const HIDDEN = "REDACTED";

/** Hiding shorter secrets would hide half of every message; no registry issues tokens that short. */
const MIN_SECRET_CHARS = 4;

/** The special range of an IP address; undefined if the address is public, or is not an IP address. */
export function findRange(address: string): AddressRange | undefined {
  const mapped = /^::ffff:(?:(\d+\.\d+\.\d+\.\d+)|([0-9a-f]{1,4}):([0-9a-f]{1,4}))$/i.exec(address);
  if (mapped !== null) {
    const [, dotted, high = "0", low = "0"] = mapped;
    const [a, b] = [Number.parseInt(high, 16), Number.parseInt(low, 16)];
    return findRange(dotted ?? `${a >> 8}.${a & 255}.${b >> 8}.${b & 255}`);
  }
  const found = parseAddress(address);
  return found && RANGES.find(([, blocks]) => blocks.some((block) => isInBlock(found, block)))?.[0];
}

/** The IP address without the brackets of a URL; undefined if `hostname` is a name. */
export function findLiteral(hostname: string): string | undefined {
  const bare = hostname.replace(/^\[|\]$/g, "");
  return parseAddress(bare) === undefined ? undefined : bare;
}

/** Whether `host[:port]` is this machine: `localhost`, `*.localhost`, 127.0.0.0/8, `::1`. */
export function isLoopback(host: string): boolean {
  const { hostname } = splitPort(host);
  const literal = findLiteral(hostname);
  if (literal !== undefined) return findRange(literal) === "loopback";
  const name = hostname.toLowerCase();
  return name === "localhost" || name.endsWith(".localhost");
}

/**
 * Why a request must not go to `target`, which the registry `origin` named; undefined if it may.
 *
 * @param options.names true also resolves host names; false where a proxy resolves them
 */
export async function whyForbidden(
  target: URL,
  origin: URL,
  options: { readonly names: boolean },
): Promise<string | undefined> {
  if (target.host === origin.host) return undefined;
  const literal = findLiteral(target.hostname);
  if (literal === undefined && !options.names) return undefined;
  const ranges = await rangesOf(target.hostname);
  // A company's own storage has a name with a private address; an address literal is a guess by an attacker.
  if (literal === undefined) ranges.delete("private");
  if (ranges.size === 0) return undefined;
  const own = await rangesOf(origin.hostname);
  const foreign = [...ranges].find((range) => !own.has(range));
  return foreign === undefined ? undefined : `${target.hostname} is a ${foreign} address`;
}

/** Why a document must not be read from `url`, to which the URL `first` redirects; undefined if it may. */
export function whyNotFetched(url: URL, first: URL): string | undefined {
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

/**
 * Why the credential of `registry` must not go to its token `server`; undefined if it may.
 *
 * @param options.isProxied whether a proxy leads to the server
 * @param options.allowsHttp whether the user allows plain http to the server
 * @param options.trusted `KO_TOKEN_HOSTS`: pairs `registry=server`, separated by commas
 */
export function whyWithheld(
  server: URL,
  registry: URL,
  options: { readonly isProxied: boolean; readonly allowsHttp: boolean; readonly trusted: string },
): string | undefined {
  const { allowsHttp, isProxied, trusted } = options;
  if (server.protocol === "http:") {
    if (isProxied) return `${server.host} is reached unencrypted through a proxy`;
    if (!isLoopback(server.host) && !allowsHttp) return `${server.host} is not reached over https`;
  }
  if (server.hostname === registry.hostname || domainOf(server.hostname) === domainOf(registry.hostname)) {
    return undefined;
  }
  const isUnder = (suffix: string): boolean => registry.hostname === suffix || registry.hostname.endsWith(`.${suffix}`);
  if (TOKEN_SERVERS.some(([suffix, host]) => isUnder(suffix) && server.host === host)) return undefined;
  const pair = `${registry.host}=${server.host}`;
  if (trusted.split(",").some((each) => each.trim() === pair)) return undefined;
  return (
    `the token server ${server.host} is under another domain than ${registry.host}, so it was not sent there ` +
    `(KO_TOKEN_HOSTS=${pair} permits it)`
  );
}

/**
 * The proxy for `url`, or false for none: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` in either case.
 *
 * As in Go, loopback is never proxied and `ALL_PROXY` is ignored. Bun's fetch does neither (docs/rules.md, Bun 4).
 */
export function chooseProxy(url: URL, env: Readonly<Record<string, string>>): string | false {
  if (isLoopback(url.host)) return false;
  const name = url.protocol === "https:" ? "HTTPS_PROXY" : "HTTP_PROXY";
  const proxy = env[name] || env[name.toLowerCase()] || "";
  if (proxy === "" || isExempt(url, env["NO_PROXY"] || env["no_proxy"] || "")) return false;
  return proxy.includes("://") ? proxy : `http://${proxy}`;
}

/** Whether a proxy's URL names a SOCKS5 proxy, which `fetch` does not know. */
export function isSocks(proxy: string): boolean {
  return /^socks5h?:\/\//i.test(proxy);
}

/** Splits `host[:port]`; a bare IPv6 address has no port. */
export function splitPort(host: string): { readonly hostname: string; readonly port: string | undefined } {
  if (parseAddress(host)?.family === 6) return { hostname: host, port: undefined };
  const match = /^(.*?)(?::(\d+))?$/.exec(host);
  return { hostname: match?.[1] ?? host, port: match?.[2] };
}

/** The URL without userinfo and fragment, and with the values of unknown query parameters hidden. */
export function redactUrl(url: URL | string): string {
  const text = String(url);
  const parsed = URL.canParse(text) ? new URL(text) : undefined;
  if (parsed === undefined) return HIDDEN;
  const query = parsed.search
    .slice(1)
    .split("&")
    .filter((part) => part !== "")
    .map((part) => {
      const at = part.indexOf("=");
      // A parameter without "=" may be a bare signature.
      if (at < 0) return HIDDEN;
      const name = part.slice(0, at);
      return SHOWN_PARAMETERS.has(name) ? part : `${name}=${HIDDEN}`;
    });
  return `${parsed.protocol}//${parsed.host}${parsed.pathname}${query.length === 0 ? "" : `?${query.join("&")}`}`;
}

/** Text that may be a URL, such as the file of `-f`: without secrets if it is one. */
export function redactIfUrl(text: string): string {
  return /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? redactUrl(text) : text;
}

/** Text of another program without the logins of its URLs: git shows those of `url.<base>.insteadOf`. */
export function hideLogins(text: string): string {
  return text.replace(/\b([a-z][a-z0-9+.-]*:\/\/)(?!git@)[^\s/@'"]+@/gi, "$1");
}

/** The passwords and tokens of a run, and a filter that hides them in texts. */
export class Secrets {
  readonly #known = new Set<string>();

  /** Hides `secrets` from now on: unencoded, in base64 and percent-encoded. */
  add(...secrets: readonly string[]): void {
    for (const secret of secrets) {
      for (const form of formsOf(secret)) if (form.length >= MIN_SECRET_CHARS) this.#known.add(form);
    }
  }

  /** The text with every known secret hidden and every URL redacted. */
  hide(text: string): string {
    let result = text.replace(/\bhttps?:\/\/[^\s"'<>\\]+/gi, (url) => {
      const shown = redactUrl(url);
      return shown === `${url}/` ? url : shown;
    });
    // Longest first: a token may contain the password that it was made of.
    const known = [...this.#known].sort((a, b) => b.length - a.length);
    for (const secret of known) result = result.replaceAll(secret, HIDDEN);
    return result;
  }

  /** At most three lines and 400 characters of a foreign text, without secrets and safe for a terminal. */
  excerpt(text: string): string {
    const lines = this.hide(text)
      .split(/\r\n|\r|\n/)
      .map((line) => line.trim())
      .filter((line) => line !== "");
    return printable(lines.slice(0, 3).join("; "), 400);
  }
}

/** The ranges of a host's addresses. A name that cannot be resolved has none: the request itself will fail. */
async function rangesOf(hostname: string): Promise<Set<AddressRange>> {
  const literal = findLiteral(hostname);
  let addresses: readonly string[];
  if (literal !== undefined) addresses = [literal];
  else if (isLoopback(hostname)) return new Set<AddressRange>(["loopback"]);
  else {
    const { lookup } = await import("node:dns/promises");
    const found = await lookup(hostname, { all: true }).catch(() => []);
    addresses = found.map(({ address }) => address);
  }
  const ranges = addresses.map(findRange).filter((range) => range !== undefined);
  return new Set(ranges);
}

/** The registrable domain, guessed without the public suffix list; an address is its own. */
function domainOf(hostname: string): string {
  if (findLiteral(hostname) !== undefined) return hostname;
  const labels = hostname.toLowerCase().split(".");
  const [second = "", last = ""] = labels.slice(-2);
  // co.uk, com.au, org.br: three labels.
  const size = last.length === 2 && /^(?:ac|co|com|edu|gob|gov|gv|ne|net|or|org)$/.test(second) ? 3 : 2;
  return labels.slice(-size).join(".");
}

/** Whether `NO_PROXY` exempts a URL: `*`, a domain, a host with or without port, an address or a block of addresses. */
function isExempt(url: URL, noProxy: string): boolean {
  const port = url.port || (url.protocol === "https:" ? "443" : "80");
  const literal = findLiteral(url.hostname);
  const address = literal === undefined ? undefined : parseAddress(literal);
  return noProxy
    .toLowerCase()
    .split(",")
    .map((entry) => entry.trim())
    .filter((entry) => entry !== "")
    .some((entry) => {
      if (entry === "*") return true;
      if (entry.includes("/")) return address !== undefined && isInBlock(address, entry);
      const wanted = splitPort(entry);
      if (wanted.port !== undefined && wanted.port !== port) return false;
      if (literal !== undefined) return findLiteral(wanted.hostname) === literal;
      const name = wanted.hostname.replace(/^\*/, "");
      if (name.startsWith(".")) return url.hostname.endsWith(name);
      return url.hostname === name || url.hostname.endsWith(`.${name}`);
    });
}

function formsOf(secret: string): readonly string[] {
  const base64 = Buffer.from(secret).toString("base64");
  return [
    secret,
    encodeURIComponent(secret),
    encodeURIComponent(secret).replace(/%[0-9A-F]{2}/g, (code) => code.toLowerCase()),
    JSON.stringify(secret).slice(1, -1),
    base64,
    base64.replace(/=+$/, ""),
    Buffer.from(secret).toString("base64url"),
    encodeURIComponent(base64),
  ];
}
