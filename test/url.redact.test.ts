import { describe, expect, test } from "bun:test";
import { redactUrl, Secrets } from "../lib/url.ts";

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
