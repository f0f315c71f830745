import { describe, expect, test } from "bun:test";
import { chooseProxy, findRange, isLoopback, whyForbidden } from "../lib/url.ts";

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
    ["not what ends alike", "https://ba.example/", { ...both, NO_PROXY: "a.example" }, "http://s:1"],
    ["a port must be the same", "https://a.example:444/", { ...both, NO_PROXY: "a.example:443" }, "http://s:1"],
    ["the default port counts", "https://a.example/", { ...both, NO_PROXY: "a.example:443" }, false],
    ["a block of addresses", "https://10.1.2.3/", { ...both, no_proxy: "10.0.0.0/8" }, false],
    ["another block", "https://11.1.2.3/", { ...both, no_proxy: "10.0.0.0/8" }, "http://s:1"],
    ["an address", "https://[2001:db8::1]/", { ...both, no_proxy: "2001:db8::1" }, false],
  ])("%s", (_, url, env, wanted) => {
    expect(chooseProxy(new URL(url), env)).toBe(wanted);
  });
});
