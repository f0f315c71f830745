/** Routes: the proxy of a URL, the answers of proxies, one bridge for each SOCKS5 proxy. */
import { describe, expect, test } from "bun:test";
import { Route, type RouteOptions } from "../lib/http-route.ts";
import { wantsPassword } from "../lib/http-errors.ts";
import { rejectionOf } from "./helpers/failures.ts";

const plain = new URL("http://registry.test/v2/");
const secure = new URL("https://registry.test/v2/");
const here = new URL("http://127.0.0.1:5000/v2/");

describe("Route", () => {
  test.each<[string, Readonly<Record<string, string>>, URL, string | false]>([
    ["no proxy", {}, secure, false],
    ["a proxy", { HTTPS_PROXY: "http://p:3128" }, secure, "http://p:3128"],
    ["a proxy without a scheme", { http_proxy: "p:3128" }, plain, "http://p:3128"],
    ["a proxy of the other scheme", { HTTP_PROXY: "p:3128" }, secure, false],
    ["a proxy that is for other hosts", { HTTPS_PROXY: "p:3128", NO_PROXY: ".test" }, secure, false],
    ["ALL_PROXY, which Go does not read", { ALL_PROXY: "socks5://127.0.0.1:1" }, secure, false],
    ["this machine", { HTTP_PROXY: "p:3128" }, here, false],
  ])("sends by %s", async (_, env, url, proxy) => {
    using route = new Route(env);
    const seen: RouteOptions[] = [];
    const send = async (options: RouteOptions): Promise<Response> => {
      seen.push(options);
      return new Response();
    };
    await route.send(url, send);
    expect({ named: route.proxyFor(url), seen }).toEqual({ named: proxy, seen: [{ proxy, tls: {} }] });
    expect(route.failure(url)).toBeUndefined();
  });

  test.each<[string, URL, Readonly<Record<string, string>>, boolean]>([
    ["a proxy", plain, { HTTP_PROXY: "p:3128" }, true],
    ["a server that is reached directly", plain, {}, false],
    ["this machine", here, { HTTP_PROXY: "p:3128" }, false],
  ])("takes 407 for the answer of %s", async (_, url, env, isProxy) => {
    using route = new Route(env);
    const work = route.send(url, async () => new Response(null, { status: 407 }));
    if (isProxy) expect(wantsPassword(await rejectionOf(work))).toBe(true);
    else expect((await work).status).toBe(407);
  });

  test("opens one bridge for a SOCKS5 proxy, however many requests begin at once", async () => {
    using route = new Route({ HTTP_PROXY: "socks5://127.0.0.1:1", HTTPS_PROXY: "socks5h://127.0.0.1:2" });
    const proxies = new Set<string | false>();
    const send = async ({ proxy }: RouteOptions): Promise<Response> => {
      proxies.add(proxy);
      return new Response();
    };
    await Promise.all([plain, plain, secure, secure].map((url) => route.send(url, send)));
    expect(proxies.size).toBe(2);
    for (const proxy of proxies) expect(proxy).toMatch(/^http:\/\/ko:[0-9a-f]{32}@127\.0\.0\.1:\d+$/);
  });
});
