import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { describeError } from "../lib/errors.ts";
import { silentLog } from "../lib/log.ts";
import { fetchInput } from "../lib/yaml-inputs.ts";
import { isUrl, readInputs } from "../lib/yaml-inputs.ts";
import { hostAt } from "./helpers/world-host.ts";

describe("isUrl()", () => {
  test.each([
    ["https://example.com/x.yaml", true],
    ["HTTP://localhost", true],
    ["config/https://x", false],
    ["ftp://example.com/x.yaml", false],
    ["-", false],
  ])("of %s is %p", (text, wanted) => {
    expect(isUrl(text)).toBe(wanted);
  });
});

describe("fetchInput()", () => {
  const asked: { readonly path: string; readonly authorization: string | null }[] = [];
  let server: Bun.Server<undefined>;
  let origin = "";
  beforeAll(() => {
    server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      idleTimeout: 0,
      fetch: (request) => {
        const { pathname, search } = new URL(request.url);
        asked.push({ path: pathname + search, authorization: request.headers.get("authorization") });
        return answer(pathname);
      },
    });
    origin = server.url.origin;
  });
  afterAll(() => server.stop(true));

  function answer(path: string): Response {
    const [, kind = "", value = ""] = /^\/(\w+)(?:\/(.*))?$/.exec(path) ?? [];
    if (kind === "ok") return new Response("a: b\n");
    if (kind === "to") return new Response(null, { status: 302, headers: { location: decodeURIComponent(value) } });
    if (kind === "loop") return new Response(null, { status: 307, headers: { location: "/loop" } });
    if (kind === "page") return new Response("<!DOCTYPE html>", { headers: { "content-type": "text/html" } });
    if (kind === "bomb") {
      const body = Bun.gzipSync(new Uint8Array(1 << 20));
      return new Response(body, { headers: { "content-encoding": "gzip" } });
    }
    if (kind === "silent")
      return new Response(new ReadableStream({ type: "bytes", pull: () => new Promise(() => {}) }));
    if (kind === "half") {
      return new Response(
        new ReadableStream<Uint8Array>({
          start: (controller) => controller.enqueue(new TextEncoder().encode("a: ")),
        }),
      );
    }
    return new Response("secret of the server", { status: Number(value) || 404 });
  }

  const get = async (url: string, options = {}): Promise<string> => {
    const host = hostAt("/");
    const work = fetchInput(url, {
      host: { ...host, env: { HTTP_PROXY: "http://127.0.0.1:1" } },
      signal: host.signal,
      ...options,
    });
    return work.then((bytes) => new TextDecoder().decode(bytes), describeError);
  };

  test("reads a file of a server on this machine, past the proxy", async () => {
    expect(await get(`${origin}/ok`)).toBe("a: b\n");
  });

  test("follows redirects, and shows the user's name and password to the first server only", async () => {
    using other = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: (request) => new Response(`got ${request.headers.get("authorization")}`),
    });
    asked.length = 0;
    const withUser = `${origin.replace("//", "//me:p%40ss@")}/to`;
    expect(await get(`${withUser}/%2Fok`)).toBe("a: b\n");
    const authorization = `Basic ${btoa("me:p@ss")}`;
    expect(asked).toEqual([
      { path: "/to/%2Fok", authorization },
      { path: "/ok", authorization },
    ]);
    expect(await get(`${withUser}/${encodeURIComponent(`${other.url.origin}/x`)}`)).toBe("got null");
  });

  test.each<[string, string, string]>([
    ["an error", "/status/500", "the server answered 500 Internal Server Error, wanted 200"],
    ["too many redirects", "/loop", "it redirects more than 10 times"],
    [
      "a redirect to a server without TLS",
      "/to/http%3A%2F%2Fexample.com%2Fx%3Fsig%3Dcanary",
      'it redirects to "http://example.com/x?sig=REDACTED", and only https is allowed, or http to this machine',
    ],
    [
      "a redirect to a file",
      "/to/file%3A%2F%2F%2Fetc%2Fpasswd",
      'it redirects to "file:///etc/passwd", and only https is allowed, or http to this machine',
    ],
    ["too much after decompression", "/bomb", "it is more than 100 bytes"],
    ["no answer", "/silent", "no answer for 0.2 s"],
    ["half a body", "/half", "no byte came for 0.2 s"],
    ["a web page", "/page", "it is a web page, wanted YAML\n  Name the URL of the raw file."],
  ])("fails on %s", async (_, path, why) => {
    const message = await get(`${origin}${path}?token=canary`, { maxBytes: 100, idleTimeout: 200 });
    expect(message).toBe(`Error: Cannot read "${origin}${path}?token=REDACTED": ${why}`);
  });

  test.each([
    ["http://example.com/x.yaml", "only https is allowed, or http to this machine"],
    ["http://user:canary@10.0.0.1/x.yaml?sig=canary", "only https is allowed, or http to this machine"],
    ["http://127.0.0.1:1/x?sig=canary", "the request failed (ECONNREFUSED)"],
  ])("does not ask %s", async (url, why) => {
    const message = await get(url);
    expect(message).toEndWith(`": ${why}`);
    expect(message).not.toContain("canary");
  });

  test("ends at once when ko is told to", async () => {
    const controller = new AbortController();
    const host = hostAt("/");
    const work = fetchInput(`${origin}/silent`, { host, signal: controller.signal });
    const reason = new Error("stop");
    controller.abort(reason);
    expect(await Promise.allSettled([work])).toEqual([{ status: "rejected", reason }]);
  });

  test("is what readInputs() does with a URL, the secret parts hidden in the name", async () => {
    const host = hostAt("/");
    const request = { files: [`${origin}/ok?sig=canary`], recursive: false, kustomize: undefined };
    const [input, ...more] = await readInputs(request, { host, log: silentLog, signal: host.signal });
    expect([input?.name, new TextDecoder().decode(input?.bytes), more]).toEqual([
      `${origin}/ok?sig=REDACTED`,
      "a: b\n",
      [],
    ]);
  });
});
