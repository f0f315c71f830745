/** Refusals one by one: whether a retry can help, and which hint they get. Bodies of all kinds: registry-pull. */
import { afterAll, describe, expect, test } from "bun:test";
import { systemClock } from "../lib/async.ts";
import type { RegistryError } from "../lib/errors.ts";
import { DEADLINES } from "../lib/http-transfer.ts";
import { Http } from "../lib/http.ts";
import { silentLog } from "../lib/log.ts";
import { readRefusal } from "../lib/registry-errors.ts";
import { Secrets } from "../lib/url.ts";

interface Refusal {
  readonly status: number;
  readonly code?: string;
  readonly text?: string;
  readonly retryAfter?: string;
  readonly method?: string;
  readonly push?: boolean;
  readonly host?: string;
  readonly source?: string;
  readonly reasons?: readonly string[];
}

let answer = (): Response => new Response();
const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => answer() });
const { signal } = new AbortController();
const http = new Http({
  ...{ log: silentLog, signal, clock: systemClock, deadlines: DEADLINES },
  ...{ userAgent: "ko/test", env: {}, insecureHosts: [], secrets: new Secrets() },
});

afterAll(async () => {
  http[Symbol.dispose]();
  await server.stop(true);
});

/** The error for a refusal of the real HTTP client. */
async function errorOf(refusal: Refusal): Promise<RegistryError> {
  const { code, host = "r.example", method = "GET", push = false, reasons = [], retryAfter, source, status } = refusal;
  const headers = retryAfter === undefined ? {} : { "retry-after": retryAfter };
  const body = code === undefined ? refusal.text : JSON.stringify({ errors: [{ code, message: refusal.text }] });
  answer = () => new Response(method === "HEAD" ? null : (body ?? ""), { status, headers });
  const response = await http.send({ method, url: new URL("/v2/app/x", server.url), action: "test" });
  const request = { action: "do it", repository: { host, path: "app" }, push };
  return readRefusal(response, { request, host, http, source, reasons });
}

describe("readRefusal()", () => {
  test.each<[RegistryError["retry"], Refusal]>([
    ["never", { status: 400 }],
    ["never", { status: 401 }],
    ["never", { status: 403, code: "UNKNOWN" }],
    ["never", { status: 404 }],
    ["never", { status: 405 }],
    ["never", { status: 413, code: "TOOMANYREQUESTS" }],
    ["never", { status: 415 }],
    ["often", { status: 408 }],
    ["often", { status: 425 }],
    ["often", { status: 429, code: "DENIED" }],
    ["often", { status: 499 }],
    ["often", { status: 500 }],
    ["often", { status: 503 }],
    ["never", { status: 501 }],
    ["never", { status: 505 }],
    ["never", { status: 507 }],
    ["often", { status: 400, code: "BLOB_UPLOAD_INVALID" }],
    ["often", { status: 404, code: "UNAVAILABLE" }],
    ["never", { status: 404, code: "MANIFEST_UNKNOWN" }],
  ])("says that a retry helps %s after %j", async (retry, refusal) => {
    expect((await errorOf(refusal)).retry).toBe(retry);
  });

  const createFirst = 'Create the repository "app" at r.example first, or check KO_DOCKER_REPO.';
  const checkName = "Check the name and the tag of the image.";
  const moveTag = "The registry does not allow moving this tag: choose another one with -t.";
  test.each<[Refusal, string | undefined]>([
    [{ status: 401 }, "Log in: ko login r.example -u USER --password-stdin"],
    [{ status: 401, host: "index.docker.io" }, "Log in: ko login docker.io -u USER --password-stdin"],
    [{ status: 403, push: true }, "Log in: ko login r.example -u USER --password-stdin"],
    [
      { status: 403, push: true, source: "a file" },
      'Create the repository "app" if it does not exist, or log in as a user who may push: ko login r.example -u USER --password-stdin',
    ],
    [
      { status: 403, source: "a file" },
      "Log in as a user who may read it: ko login r.example -u USER --password-stdin",
    ],
    [{ status: 404 }, checkName],
    [{ status: 404, push: true }, createFirst],
    [{ status: 404, push: true, code: "NAME_UNKNOWN" }, createFirst],
    [{ status: 400, push: true, code: "NAME_UNKNOWN" }, createFirst],
    [
      { status: 404, push: true, code: "NAME_UNKNOWN", host: "123456789012.dkr.ecr.eu-west-1.amazonaws.com" },
      "Create the repository, which a push to ECR does not: aws ecr create-repository --repository-name app --region eu-west-1",
    ],
    [{ status: 404, push: true, code: "MANIFEST_UNKNOWN" }, checkName],
    [{ status: 412 }, moveTag],
    [{ status: 400, code: "TAG_INVALID" }, moveTag],
    [{ status: 409, text: "the tag is Immutable" }, moveTag],
    [{ status: 413 }, "Raise the upload limit of the proxy in front of the registry (nginx: client_max_body_size)."],
    [{ status: 429 }, "Wait, or log in for a higher limit: ko login r.example -u USER --password-stdin"],
    [{ status: 429, source: "a file" }, undefined],
    [{ status: 500 }, undefined],
  ])("of %j gives a hint", async (refusal, hint) => {
    expect((await errorOf(refusal)).hint).toBe(hint);
  });

  test.each<[Refusal, string]>([
    [{ status: 500, code: "UNKNOWN", text: "broken" }, "500 (UNKNOWN: broken)"],
    [{ status: 500, source: "a file" }, "500"],
    [{ status: 401, source: "a file" }, "401, with the credential from a file"],
    [{ status: 403 }, "403, without a credential: there is none for r.example"],
    [{ status: 404, reasons: ["a", "b"] }, "404, without a credential: a; b"],
    [{ status: 500, method: "HEAD" }, "500 (a HEAD response has no body with the reason)"],
  ])("of %j says who asked and the reason", async (refusal, end) => {
    const { method = "GET" } = refusal;
    expect((await errorOf(refusal)).message).toBe(`Cannot do it: ${method} ${server.url.href}v2/app/x answered ${end}`);
  });

  test("keeps Retry-After", async () => {
    expect((await errorOf({ status: 429, retryAfter: "7" })).retryAfter).toBe(7000);
    expect((await errorOf({ status: 429 })).retryAfter).toBeUndefined();
  });
});
