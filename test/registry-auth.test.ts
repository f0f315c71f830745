import { describe, expect, test } from "bun:test";
import { findUsable, parseChallenges } from "../lib/registry-auth.ts";

const bearer = (parameters: Record<string, string>): unknown => ({ scheme: "bearer", parameters });

describe("parseChallenges()", () => {
  test.each<[string, string, unknown]>([
    ["nothing", "", []],
    ["a scheme alone", "Basic", [{ scheme: "basic", parameters: {} }]],
    ["quoted values", 'Basic realm="x"', [{ scheme: "basic", parameters: { realm: "x" } }]],
    ["bare values and other case", "BEARER Realm=https://a/b", [bearer({ realm: "https://a/b" })]],
    [
      "commas and quotes inside of quotes",
      'Bearer realm="https://a/t",service="a, \\"b\\"",scope="repository:x:pull,push"',
      [bearer({ realm: "https://a/t", service: 'a, "b"', scope: "repository:x:pull,push" })],
    ],
    [
      "several challenges in one header",
      'Negotiate, Bearer realm="r",service="s", Basic realm="b"',
      [
        { scheme: "negotiate", parameters: {} },
        bearer({ realm: "r", service: "s" }),
        { scheme: "basic", parameters: { realm: "b" } },
      ],
    ],
    [
      "an opaque value",
      'Negotiate YII=, Bearer realm="r"',
      [{ scheme: "negotiate", parameters: {} }, bearer({ realm: "r" })],
    ],
    ["blanks around signs", 'Bearer realm = "r" ,  service = s', [bearer({ realm: "r", service: "s" })]],
    ["the first of two equal parameters", 'Bearer realm="a",realm="b"', [bearer({ realm: "a" })]],
    ["an open quote", 'Bearer realm="a', [bearer({ realm: "a" })]],
    ["garbage before it", '\u0001;"" Bearer realm="a"', [bearer({ realm: "a" })]],
    [
      "names that objects have",
      "Bearer __proto__=x,constructor=y",
      [bearer(JSON.parse('{"__proto__":"x","constructor":"y"}'))],
    ],
  ])("reads %s", (_, header, wanted) => {
    expect(JSON.stringify(parseChallenges(header))).toBe(JSON.stringify(wanted));
  });
});

describe("findUsable()", () => {
  test.each([
    ['Negotiate, Bearer realm="r", Basic', "bearer"],
    ['Basic realm="b", Bearer realm="r"', "basic"],
    ["Digest realm=x", undefined],
  ])("of %s picks %s", (header, scheme) => {
    expect(findUsable(parseChallenges(header))?.scheme).toBe(scheme);
  });
});
