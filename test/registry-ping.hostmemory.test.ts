import { describe, expect, test } from "bun:test";
import { isSameChallenge, keepChallenge, readRememberedHost } from "../lib/registry-ping.ts";

const bearer = { scheme: "bearer", parameters: { realm: "https://auth.example/token?x=1", service: "registry" } };

describe("readRememberedHost()", () => {
  test.each<[string, unknown]>([
    ["an open registry", { base: "https://registry.example/" }],
    ["one that speaks http", { base: "http://127.0.0.1:5000/" }],
    ["one at an IPv6 address", { base: "http://[::1]:5000/" }],
    ["one that wants a token", { base: "https://registry.example/", challenge: bearer }],
    [
      "one that wants a password",
      { base: "https://registry.example/", challenge: { scheme: "basic", parameters: {} } },
    ],
  ])("takes %s", (_, value) => {
    const read: unknown = readRememberedHost(JSON.parse(JSON.stringify(value)));
    expect(read).toEqual(value);
  });

  test("takes no more than is needed", () => {
    const challenge = {
      ...bearer,
      extra: 1,
      parameters: { ...bearer.parameters, scope: "repository:a:pull", token: "x" },
    };
    expect(readRememberedHost({ base: "https://registry.example/", challenge, token: "x" })).toEqual({
      base: "https://registry.example/",
      challenge: bearer,
    });
  });

  test.each<[string, unknown]>([
    ["nothing", undefined],
    ["null", null],
    ["a list", []],
    ["a text", "https://registry.example/"],
    ["no base", {}],
    ["a base that is no text", { base: 1 }],
    ["a base that is no URL", { base: "https://[/" }],
    ["a base with a path", { base: "https://registry.example/v2/" }],
    ["a base without its end", { base: "https://registry.example" }],
    ["a base with a user", { base: "https://joe@registry.example/" }],
    ["a base with a query", { base: "https://registry.example/?x=/" }],
    ["a base of another scheme", { base: "file:///" }],
    ["a base with a line end", { base: "https://registry.example\n/" }],
    ["a base that has no end", { base: `https://${"a".repeat(5000)}/` }],
    ["a challenge that is null", { base: "https://a/", challenge: null }],
    ["a challenge without parameters", { base: "https://a/", challenge: { scheme: "basic" } }],
    ["an unknown scheme", { base: "https://a/", challenge: { scheme: "negotiate", parameters: {} } }],
    ["a scheme in capitals", { base: "https://a/", challenge: { ...bearer, scheme: "Bearer" } }],
    ["parameters that are no texts", { base: "https://a/", challenge: { scheme: "bearer", parameters: { realm: 1 } } }],
    ["a token without a server", { base: "https://a/", challenge: { scheme: "bearer", parameters: {} } }],
    [
      "a server with a password",
      { base: "https://a/", challenge: { scheme: "bearer", parameters: { realm: "https://joe:pass@b/token" } } },
    ],
    [
      "a service with a line end",
      { base: "https://a/", challenge: { scheme: "bearer", parameters: { realm: "https://b/", service: "x\r\ny" } } },
    ],
  ])("refuses %s", (_, value) => {
    expect(readRememberedHost(value)).toBeUndefined();
  });
});

describe("keepChallenge()", () => {
  test("keeps what the next run needs", () => {
    const parameters = { ...bearer.parameters, scope: "repository:secret/app:pull", error: "invalid_token" };
    expect(keepChallenge({ scheme: "bearer", parameters })).toEqual(bearer);
    expect(keepChallenge({ scheme: "basic", parameters: { realm: "x" } })).toEqual({ scheme: "basic", parameters: {} });
  });

  test.each([undefined, "", "no URL", "https://joe:pass@auth.example/token", `https://b/${"x".repeat(5000)}`])(
    "keeps none whose realm is %p",
    (realm) => {
      expect(keepChallenge({ scheme: "bearer", parameters: realm === undefined ? {} : { realm } })).toBeUndefined();
    },
  );
});

test("isSameChallenge() looks at scheme, realm and service", () => {
  const { parameters } = bearer;
  const scoped = { ...bearer, parameters: { ...parameters, scope: "x" } };
  const moved = { ...bearer, parameters: { ...parameters, realm: "https://other.example/" } };
  const basic = { scheme: "basic", parameters: { realm: "a" } };
  expect(isSameChallenge(undefined, undefined)).toBe(true);
  expect(isSameChallenge(bearer, undefined)).toBe(false);
  expect(isSameChallenge(bearer, scoped)).toBe(true);
  expect(isSameChallenge(bearer, moved)).toBe(false);
  expect(isSameChallenge(bearer, basic)).toBe(false);
  expect(isSameChallenge(basic, { ...basic, parameters: {} })).toBe(true);
});
