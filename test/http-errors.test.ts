/** The words of failed exchanges, whether a retry may help, and what to type. */
import { describe, expect, test } from "bun:test";
import { RegistryError } from "../lib/errors.ts";
import { explainFailure, type FailedExchange } from "../lib/http-errors.ts";
import { Secrets } from "../lib/url.ts";

const explain = (
  error: unknown,
  exchange: Partial<FailedExchange> = {},
): { why: string; retry: string | undefined; hint: string | undefined } => {
  const failure = explainFailure(error, {
    request: { action: "read it", method: "GET" },
    url: new URL("https://registry.test/v2/?sig=s3cret"),
    shown: "https://registry.test/v2/?sig=REDACTED",
    secrets: new Secrets(),
    stalled: undefined,
    isSilent: false,
    proxy: false,
    proxyFailure: undefined,
    ...exchange,
  });
  const prefix = /^Cannot read it: GET https?:\/\/[^ ]+: /;
  expect(failure.message).toMatch(prefix);
  expect(failure.message).not.toContain("s3cret");
  const retry = failure instanceof RegistryError ? failure.retry : undefined;
  return { why: failure.message.replace(prefix, ""), retry, hint: failure.hint };
};
const code = (name: string, more: object = {}): Error =>
  Object.assign(new Error(`${name} at x`), { code: name, ...more });
const local = { url: new URL("http://localhost:5000/v2/") };
const proxy = "http://joe:s3cret@proxy.test:3128";

describe("explainFailure()", () => {
  test.each<[string, unknown, Partial<FailedExchange>, string, string, string | undefined]>([
    ["silence", code("x"), { stalled: "no answer for 60 s" }, "no answer for 60 s", "once", undefined],
    [
      "silence that has lasted",
      code("x"),
      { stalled: "no answer for 30 s, 90 s in all", isSilent: true },
      "no answer for 30 s, 90 s in all",
      "never",
      undefined,
    ],
    [
      "a closed port",
      code("ECONNREFUSED"),
      {},
      "nothing listens there (ECONNREFUSED)",
      "once",
      "Is registry.test running? Start it, or correct its name.",
    ],
    [
      "a closed port of this machine",
      code("ECONNREFUSED"),
      local,
      "nothing listens there (ECONNREFUSED)",
      "soon",
      "Is localhost:5000 running? Start it, or correct its name.",
    ],
    ["a reset", code("ECONNRESET"), {}, "the connection failed (ECONNRESET)", "often", undefined],
    [
      "a closed proxy",
      code("ECONNREFUSED"),
      { proxy },
      "nothing listens there through the proxy proxy.test:3128 (ECONNREFUSED)",
      "once",
      "Check HTTPS_PROXY and NO_PROXY.",
    ],
    [
      "a certificate",
      code("UNABLE_TO_VERIFY_LEAF_SIGNATURE"),
      {},
      "its certificate is not trusted (UNABLE_TO_VERIFY_LEAF_SIGNATURE)",
      "never",
      "Set SSL_CERT_FILE to the CA's PEM file, or ca of registry.test in registries of .ko.yaml. --insecure-registry checks nothing.",
    ],
    [
      "an old certificate",
      code("CERT_HAS_EXPIRED"),
      {},
      "its certificate has expired (CERT_HAS_EXPIRED)",
      "never",
      "Check the clock of this machine: date",
    ],
    [
      "a certificate of tomorrow",
      code("CERT_NOT_YET_VALID"),
      {},
      "its certificate is not valid yet (CERT_NOT_YET_VALID)",
      "never",
      "Check the clock of this machine: date",
    ],
    [
      "a proxy that cannot reach the server",
      code("ERR_PROXY_TUNNEL", { status: 502 }),
      { proxy },
      "the proxy proxy.test:3128 refused the connection (502)",
      "once",
      "Check HTTPS_PROXY and NO_PROXY.",
    ],
    [
      "a proxy that forbids the server",
      code("ERR_PROXY_TUNNEL", { status: 403 }),
      { proxy },
      "the proxy proxy.test:3128 refused the connection (403)",
      "never",
      "Check HTTPS_PROXY and NO_PROXY.",
    ],
    [
      "a proxy that refuses a password",
      code("ERR_PROXY_TUNNEL", { status: 407 }),
      { proxy },
      "the proxy proxy.test:3128 refuses the user and password of its URL (407)",
      "never",
      "Set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT",
    ],
    [
      "a SOCKS5 proxy",
      code("ERR_PROXY_TUNNEL", { status: 502 }),
      { proxy: "socks5://joe:s3cret@proxy.test:1080", proxyFailure: "nothing listens there" },
      "the proxy proxy.test:1080 cannot connect: nothing listens there",
      "once",
      "Check HTTPS_PROXY and NO_PROXY.",
    ],
    [
      "other words, which may quote a URL",
      new Error("at https://x.test/?sig=s3cret"),
      {},
      "at https://x.test/?sig=REDACTED",
      "once",
      undefined,
    ],
  ])("%s", (_, error, exchange, why, retry, hint) => {
    expect(explain(error, exchange)).toEqual({ why, retry, hint });
  });
});
