import { describe, expect, test } from "bun:test";
import {
  chooseProxy,
  findRange,
  isLoopback,
  redactIfUrl,
  redactUrl,
  Secrets,
  whyForbidden,
  whyWithheld,
} from "../lib/url.ts";

describe("isLoopback()", () => {
  test.each([
    ["localhost", true],
    ["localhost:5000", true],
    ["a.LOCALHOST:80", true],
    ["127.0.0.1", true],
    ["127.9.9.9:5000", true],
    ["[::1]:5000", true],
    ["[::ffff:127.0.0.1]", true],
    ["localhost.example.com", false],
    ["notlocalhost", false],
    ["127.0.0.1.example.com:5000", false],
    ["192.168.0.1", false],
    ["registry.local:5000", false],
    ["[::2]", false],
  ])("%s: %p", (host, wanted) => {
    expect(isLoopback(host)).toBe(wanted);
  });
});

describe("findRange()", () => {
  test.each([
    ["8.8.8.8", undefined],
    ["169.254.169.254", "link-local"],
    ["100.100.100.200", "metadata"],
    ["fd00:ec2::254", "metadata"],
    ["fe80::1", "link-local"],
    ["10.1.2.3", "private"],
    ["172.32.0.1", undefined],
    ["fd12::1", "private"],
    ["0.0.0.0", "unspecified"],
    ["::", "unspecified"],
    ["::ffff:a9fe:a9fe", "link-local"],
    ["2001:db8::1", undefined],
    ["example.com", undefined],
  ] as const)("%s is %p", (address, wanted) => {
    expect(findRange(address)).toBe(wanted);
  });
});

describe("whyForbidden()", () => {
  test.each([
    ["https://10.0.0.1/x", "https://registry.invalid/", "10.0.0.1 is a private address"],
    ["https://169.254.169.254/x", "https://10.0.0.1/", "169.254.169.254 is a link-local address"],
    ["https://[::1]/x", "https://registry.invalid/", "[::1] is a loopback address"],
    ["https://0x7f.1/x", "https://registry.invalid/", "127.0.0.1 is a loopback address"],
    ["https://localhost/x", "https://registry.invalid/", "localhost is a loopback address"],
    ["https://10.0.0.2/x", "https://10.0.0.1/", undefined],
    ["https://127.0.0.1:2/x", "https://127.0.0.1:1/", undefined],
    ["https://unknown.invalid/x", "https://registry.invalid/", undefined],
  ])("%s named by %s: %p", async (target, origin, wanted) => {
    expect(await whyForbidden(new URL(target), new URL(origin), { names: true })).toBe(wanted);
  });

  test("leaves names to the proxy", async () => {
    expect(
      await whyForbidden(new URL("https://localhost/"), new URL("https://registry.invalid/"), { names: false }),
    ).toBeUndefined();
  });
});

describe("whyWithheld()", () => {
  const elsewhere = (registry: string, server: string): string =>
    `the token server ${server} is under another domain than ${registry}, so it was not sent there (KO_TOKEN_HOSTS=${registry}=${server} permits it)`;
  test.each<[string, string, string, string | undefined]>([
    ["the registry itself", "https://ghcr.io/", "https://ghcr.io/token", undefined],
    ["another port of it", "https://ghcr.io/", "https://ghcr.io:444/token", undefined],
    ["the same domain", "https://registry-1.docker.io/", "https://auth.docker.io/token", undefined],
    ["a domain under a country", "https://r.a.co.uk/", "https://auth.a.co.uk/", undefined],
    ["only its public suffix", "https://r.a.co.uk/", "https://b.co.uk/", elsewhere("r.a.co.uk", "b.co.uk")],
    ["another domain", "https://a.example/", "https://b.test/", elsewhere("a.example", "b.test")],
    ["a name that ends alike", "https://a.test/", "https://ba.test/", elsewhere("a.test", "ba.test")],
    ["another address", "https://10.0.0.1/", "https://20.0.0.1/", elsewhere("10.0.0.1", "20.0.0.1")],
    ["a known pair", "https://nvcr.io/", "https://authn.nvidia.com/", undefined],
    ["a known pair, by region", "https://rg.fr-par.scw.cloud/", "https://api.scaleway.com/", undefined],
    [
      "a host that ends alike",
      "https://xnvcr.io/",
      "https://authn.nvidia.com/",
      elsewhere("xnvcr.io", "authn.nvidia.com"),
    ],
    ["a pair that the user named", "https://a.example:5000/", "https://b.test/", undefined],
    ["http on this machine", "http://localhost:1/", "http://localhost:2/", undefined],
    ["http elsewhere", "http://a.test/", "http://a.test/token", "a.test is not reached over https"],
  ])("of %s", (_, registry, server, wanted) => {
    const trusted = "x=y, a.example:5000=b.test";
    const options = { isProxied: false, allowsHttp: false, trusted };
    expect(whyWithheld(new URL(server), new URL(registry), options)).toBe(wanted);
  });

  test.each<[string, boolean, boolean, string | undefined]>([
    ["is allowed where the user says so", false, true, undefined],
    ["is never allowed through a proxy", true, true, "a.test is reached unencrypted through a proxy"],
  ])("http %s", (_, isProxied, allowsHttp, wanted) => {
    const server = new URL("http://a.test/");
    expect(whyWithheld(server, server, { isProxied, allowsHttp, trusted: "" })).toBe(wanted);
  });
});

describe("chooseProxy()", () => {
  const both = { HTTPS_PROXY: "http://s:1", http_proxy: "c:2", ALL_PROXY: "http://all:3" };
  test.each<[string, string, Record<string, string>, string | false]>([
    ["https goes through HTTPS_PROXY", "https://a.example/", both, "http://s:1"],
    ["http goes through http_proxy, which may lack a scheme", "http://a.example/", both, "http://c:2"],
    ["loopback goes nowhere else", "http://127.0.0.1:5000/", both, false],
    ["localhost goes nowhere else", "https://localhost:5000/", both, false],
    ["ALL_PROXY does not count", "https://a.example/", { ALL_PROXY: "http://all:3" }, false],
    ["NO_PROXY=*", "https://a.example/", { ...both, NO_PROXY: "*" }, false],
    ["a domain exempts its hosts", "https://r.a.example/", { ...both, NO_PROXY: "x, A.example" }, false],
    ["and itself", "https://a.example/", { ...both, NO_PROXY: "a.example" }, false],
    ["with a dot only its hosts", "https://a.example/", { ...both, NO_PROXY: ".a.example" }, "http://s:1"],
    ["not a name that ends alike", "https://ba.example/", { ...both, NO_PROXY: "a.example" }, "http://s:1"],
    ["a port must be the same", "https://a.example:444/", { ...both, NO_PROXY: "a.example:443" }, "http://s:1"],
    ["the default port counts", "https://a.example/", { ...both, NO_PROXY: "a.example:443" }, false],
    ["a block of addresses", "https://10.1.2.3/", { ...both, no_proxy: "10.0.0.0/8" }, false],
    ["another block", "https://11.1.2.3/", { ...both, no_proxy: "10.0.0.0/8" }, "http://s:1"],
    ["an address", "https://[2001:db8::1]/", { ...both, no_proxy: "2001:db8::1" }, false],
  ])("%s", (_, url, env, wanted) => {
    expect(chooseProxy(new URL(url), env)).toBe(wanted);
  });
});

describe("redactIfUrl()", () => {
  test.each([
    ["config/", "config/"],
    ["-", "-"],
    ["a@b:c", "a@b:c"],
    ["HTTPS://me:pw@h.example/a?sig=1#x", "https://h.example/a?sig=REDACTED"],
    ["git+ssh://me:pw@h.example/a", "git+ssh://h.example/a"],
    ["https://", "REDACTED"],
  ])("%s", (text, shown) => {
    expect(redactIfUrl(text)).toBe(shown);
  });
});

describe("redactUrl()", () => {
  test.each([
    ["https://a.example/v2/", "https://a.example/v2/"],
    ["https://user:pass@a.example:5000/v2/#frag", "https://a.example:5000/v2/"],
    [
      "https://a/t?service=s&scope=repository%3Ax%3Apull&account=joe",
      "https://a/t?service=s&scope=repository%3Ax%3Apull&account=REDACTED",
    ],
    ["https://a/u?_state=abc%3D&digest=sha256%3Aff", "https://a/u?_state=REDACTED&digest=sha256%3Aff"],
    [
      "https://s3/x?X-Amz-Signature=abc&X-Amz-Credential=def",
      "https://s3/x?X-Amz-Signature=REDACTED&X-Amz-Credential=REDACTED",
    ],
    ["https://a/x?barevalue", "https://a/x?REDACTED"],
    ["no url", "REDACTED"],
  ])("%s is shown as %s", (url, shown) => {
    expect(redactUrl(url)).toBe(shown);
  });
});

describe("Secrets", () => {
  const secrets = new Secrets();
  secrets.add("p&ss wörd/1", "joe:p&ss wörd/1", "abc");

  test.each([
    ["unencoded", "it is p&ss wörd/1!", "it is REDACTED!"],
    ["percent-encoded", `x=${encodeURIComponent("p&ss wörd/1")}`, "x=REDACTED"],
    ["in base64", `Basic ${Buffer.from("joe:p&ss wörd/1").toString("base64")}`, "Basic REDACTED"],
    ["in base64 without padding", Buffer.from("p&ss wörd/1").toString("base64").replace(/=+$/, ""), "REDACTED"],
    ["in a URL of a text", "see https://x/y?sig=1&n=2 there", "see https://x/y?sig=REDACTED&n=2 there"],
    ["but not if it is too short", "abc abcd", "abc abcd"],
  ])("hides a secret %s", (_, text, wanted) => {
    expect(secrets.hide(text)).toBe(wanted);
  });

  test("shows three lines of a foreign text, without control characters", () => {
    expect(secrets.excerpt("\n one\u001b[31m\r\n\r\n two\u0000\nthree\nfour")).toBe("one\\x1b[31m; two\\x00; three");
  });

  test("cuts long texts", () => {
    expect(secrets.excerpt("x".repeat(10_000)).length).toBe(401);
  });
});
