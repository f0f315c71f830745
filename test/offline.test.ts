import { describe, expect, test } from "bun:test";
import { isOffline, offlineEnvironment, refuseOffline } from "../lib/offline.ts";

describe("offlineEnvironment()", () => {
  test("keeps go from the network, too", () => {
    const env = offlineEnvironment({ GOPROXY: "https://proxy.test", GOPRIVATE: "*", A: "b" });
    expect(env).toEqual({ GOPROXY: "off", GONOPROXY: "none", GOPRIVATE: "*", A: "b", KO_OFFLINE: "1" });
    expect([isOffline(env), isOffline({}), isOffline({ KO_OFFLINE: "" }), isOffline({ KO_OFFLINE: "yes" })]).toEqual([
      true,
      false,
      false,
      true,
    ]);
  });
});

describe("refuseOffline()", () => {
  const env = { KO_OFFLINE: "1" };
  test.each(["http://localhost:5000/", "https://127.0.0.1/", "http://[::1]:80/"])("lets %s pass", (url) => {
    refuseOffline(new URL(url), { action: "read x", env });
  });

  test.each(["https://registry.test/", "http://10.0.0.1:5000/", "https://localhost.example.com/"])(
    "refuses %s",
    (url) => {
      const host = new URL(url).host;
      expect(() => refuseOffline(new URL(url), { action: "read x", env })).toThrow(
        `Cannot read x: --offline allows requests to this machine alone, and it is at ${host}`,
      );
      refuseOffline(new URL(url), { action: "read x", env: {} });
    },
  );
});
