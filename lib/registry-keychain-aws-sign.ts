/**
 * Signs requests to services of AWS: Signature Version 4, in the `Authorization` header.
 *
 * The path is taken as the URL has it; services that want it encoded twice are asked at `/` only.
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
 */

/** The keys of an AWS identity. */
export interface AwsKeys {
  readonly id: string;
  readonly secret: string;
  /** The session token of temporary keys. */
  readonly token: string | undefined;
}

export interface SignableRequest {
  readonly method: string;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export interface SignOptions {
  readonly keys: AwsKeys;
  readonly region: string;
  /** `ecr` */
  readonly service: string;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

const ALGORITHM = "AWS4-HMAC-SHA256";

/** The headers of the request with the signature over all of them. `host` is signed, and left to the HTTP client. */
export function signRequest(
  { body, headers, method, url }: SignableRequest,
  { keys, now, region, service }: SignOptions,
): Readonly<Record<string, string>> {
  // 20150830T123600Z
  const time = new Date(now).toISOString().replace(/[:-]|\.\d+/g, "");
  const own = {
    ...Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value])),
    "x-amz-date": time,
    ...(keys.token === undefined ? {} : { "x-amz-security-token": keys.token }),
  };
  const signed = Object.entries({ ...own, host: url.host }).sort(([a], [b]) => compare(a, b));
  const names = signed.map(([name]) => name).join(";");
  const canonical = [
    method,
    url.pathname,
    canonicalQuery(url),
    ...signed.map(([name, value]) => `${name}:${value.trim().replace(/ +/g, " ")}`),
    "",
    names,
    sha256(body),
  ].join("\n");
  const day = time.slice(0, 8);
  const scope = `${day}/${region}/${service}/aws4_request`;
  const text = [ALGORITHM, time, scope, sha256(canonical)].join("\n");
  const key = [day, region, service, "aws4_request"].reduce<string | Uint8Array>(hmac, `AWS4${keys.secret}`);
  const signature = hmac(key, text).toString("hex");
  const authorization = `${ALGORITHM} Credential=${keys.id}/${scope}, SignedHeaders=${names}, Signature=${signature}`;
  return { ...own, authorization };
}

/** The parameters, encoded and sorted by name and value. */
function canonicalQuery(url: URL): string {
  const parameters = url.search
    .slice(1)
    .split("&")
    .filter((part) => part !== "");
  const pairs = parameters.map((part): readonly [string, string] => {
    const [name = "", ...value] = part.split("=");
    return [encode(name), encode(value.join("="))];
  });
  return pairs
    .sort(([a, x], [b, y]) => compare(a, b) || compare(x, y))
    .map(([name, value]) => `${name}=${value}`)
    .join("&");
}

/** Encodes all but the unreserved characters of RFC 3986. The text is a part of a URL, so it may be encoded already. */
function encode(text: string): string {
  return encodeURIComponent(decodeURIComponent(text)).replace(
    /[!'()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** By code unit, as AWS sorts. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function sha256(text: string): string {
  return new Bun.CryptoHasher("sha256").update(text).digest("hex");
}

function hmac(key: string | Uint8Array, text: string): Buffer {
  return new Bun.CryptoHasher("sha256", key).update(text).digest();
}
