import { describe, expect, test } from "bun:test";
import { json, makeCloudWorld, type Service, type Services } from "./helpers/registry-clouds.ts";

const REPOSITORY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app";
const API = "POST https://api.ecr.eu-west-1.amazonaws.com/";
const env = { AWS_ACCESS_KEY_ID: "AKIA", AWS_SECRET_ACCESS_KEY: "canary-secret" };
const authorizationToken = Buffer.from("AWS:pw").toString("base64");
const give = (expiresAt: number): Response => json({ authorizationData: [{ authorizationToken, expiresAt }] });

/** A service whose first answers are these, and the last one for ever. */
function sequence(...answers: readonly (() => Response | undefined)[]): Service {
  let next = 0;
  return () => answers[Math.min(next++, answers.length - 1)]?.();
}

const ask = async (service: Service, more: { readonly patience?: number } = {}) => {
  using world = makeCloudWorld({ env, services: { [API]: service }, ...more });
  const said = await world.ask(REPOSITORY);
  return { said: said.replace(/; there is none.*/, ""), calls: world.calls.length, log: world.said.join("\n") };
};

describe("a service of a cloud", () => {
  test.each<[string, Service, string, number]>([
    [
      "that fails once is asked again",
      sequence(
        () => json({}, 502),
        () => give(4e9),
      ),
      "AWS:pw (AWS, with the keys of AWS_ACCESS_KEY_ID)",
      2,
    ],
    [
      "that is busy is asked again",
      sequence(
        () => json({}, 429),
        () => give(4e9),
      ),
      "AWS:pw (AWS, with the keys of AWS_ACCESS_KEY_ID)",
      2,
    ],
    [
      "that fails twice is left",
      () => json({}, 503),
      `AWS gave none: ${API} answered 503, with the keys of AWS_ACCESS_KEY_ID`,
      2,
    ],
    [
      "that refuses is asked once",
      () => json({ message: "canary-body" }, 400),
      `AWS gave none: ${API} answered 400, with the keys of AWS_ACCESS_KEY_ID`,
      1,
    ],
    ...[
      { error: "canary-body" },
      { error: "canarybody" },
      { error: { status: "CANARY_BODY" } },
      { __type: "com.amazon#CanaryBody", code: "canary.body" },
      { errors: [{ code: "CANARYBODY" }] },
      { error_description: "AADSTScanary" },
    ].map((body): [string, Service, string, number] => [
      `that puts a secret into ${JSON.stringify(body)} is not quoted`,
      () => json(body, 400),
      `AWS gave none: ${API} answered 400, with the keys of AWS_ACCESS_KEY_ID`,
      1,
    ]),
    [
      "that puts a secret into XML is not quoted",
      () => new Response("<Error><Code>CanaryBody</Code></Error>", { status: 403 }),
      `AWS gave none: ${API} answered 403, with the keys of AWS_ACCESS_KEY_ID`,
      1,
    ],
    [
      "that redirects is not followed",
      () => Response.redirect("https://evil.example/", 307),
      `AWS gave none: ${API} answered 307, with the keys of AWS_ACCESS_KEY_ID`,
      1,
    ],
    [
      "that answers no JSON is left",
      () => new Response("canary-body"),
      `AWS gave none: ${API} did not answer with JSON`,
      1,
    ],
    [
      "that answers too much is left",
      () => new Response("canary".repeat(20_000)),
      `AWS gave none: ${API} answered more than 64 KiB`,
      1,
    ],
    [
      "that names an odd code is not quoted",
      () => json({ code: "canary body with blanks" }, 400),
      `AWS gave none: ${API} answered 400, with the keys of AWS_ACCESS_KEY_ID`,
      1,
    ],
  ])("%s", async (_, service, said, calls) => {
    const result = await ask(service);
    expect({ said: result.said, calls: result.calls }).toEqual({ said, calls });
    expect(result.log).not.toContain("canary");
  });

  test("that is silent has one limit for all attempts", async () => {
    const { calls, said } = await ask(() => undefined, { patience: 50 });
    expect(said).toMatch(/^AWS gave none: (?:no answer within 0\.05 s|.*no answer for .* s)$/);
    expect(calls).toBeLessThanOrEqual(2);
  });

  test("that does not listen is named", async () => {
    using world = makeCloudWorld({ env });
    expect(await world.ask(REPOSITORY)).toStartWith(
      "AWS gave none: POST http://127.0.0.1:1/: nothing listens there (ECONNREFUSED)",
    );
  });

  test("is asked again when its credential is old, and not before", async () => {
    using world = makeCloudWorld({
      env,
      services: {
        [API]: sequence(
          () => give(1),
          () => give(4e9),
        ),
      },
    });
    for (const _ of [1, 2, 3, 4]) await world.find(REPOSITORY);
    expect(world.asked()).toEqual([API, API]);
  });

  test("that has refused is not asked again", async () => {
    using world = makeCloudWorld({ env, services: { [API]: () => json({}, 400) } });
    for (const _ of [1, 2, 3]) await world.find(REPOSITORY);
    expect(world.asked()).toEqual([API]);
  });

  test("that refuses is a warning for a pull", async () => {
    using world = makeCloudWorld({ env, services: { [API]: () => json({}, 400) } });
    for (const _ of [1, 2]) await world.find(REPOSITORY, { effort: "all", push: false });
    expect(world.said.filter((line) => line.startsWith("Warning"))).toEqual([
      `Warning: No credentials for ${REPOSITORY.replace("/app", "")}: AWS gave none: ${API} answered 400, with the keys of AWS_ACCESS_KEY_ID`,
    ]);
  });

  test("that a machine lacks is no warning", async () => {
    using world = makeCloudWorld({});
    await world.find(REPOSITORY, { effort: "all", push: false });
    expect(world.said.filter((line) => line.startsWith("Warning"))).toEqual([]);
  });

  test("goes through the proxy unless it is of this machine", async () => {
    const services: Services = { [API]: () => give(4e9) };
    using world = makeCloudWorld({ env: { ...env, HTTPS_PROXY: "http://proxy.example" }, services });
    await world.find(REPOSITORY);
    expect(world.calls.map(({ isDirect }) => isDirect)).toEqual([false]);
  });
});
