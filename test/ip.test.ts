import { describe, expect, test } from "bun:test";
import { BlockList, isIP } from "node:net";
import { isInBlock, parseAddress } from "../lib/ip.ts";

/** A source of whole numbers below a limit, always the same. */
function numbers(start: number): (limit: number) => number {
  let state = start;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

/** An address, or almost one. */
function almostAddress(below: (limit: number) => number): string {
  const pick = (choices: readonly string[]): string => choices[below(choices.length)] ?? "";
  if (below(3) === 0)
    return Array.from({ length: below(9) === 0 ? 5 : 4 }, () => pick(["0", "10", "255", "127", "256", "01"])).join(".");
  const groups = Array.from({ length: below(4) === 0 ? below(10) : 8 }, () =>
    pick(["0", "1", "ffff", "FE80", "abcd", "fe80", below(5) === 0 ? "" : "2", below(9) === 0 ? "12345" : "3"]),
  );
  if (below(4) === 0) groups.splice(-2, 2, pick(["1.2.3.4", "0.0.0.0", "1.2.3"]));
  return groups.join(":");
}

describe("parseAddress()", () => {
  test("finds the family that node:net finds", () => {
    const below = numbers(1);
    let addresses = 0;
    for (let i = 0; i < 20_000; i++) {
      const text = almostAddress(below);
      const family = isIP(text);
      if (family !== 0) addresses++;
      expect([text, parseAddress(text)?.family ?? 0]).toEqual([text, family]);
    }
    expect(addresses).toBeGreaterThan(2000);
  });

  test.each([
    "",
    ":",
    "::",
    ":::",
    "1::2::3",
    "::1%eth0",
    "::ffff:1.2.3.4",
    "1.2.3.4:80",
    "[::1]",
    "1:2:3:4:5:6:7::",
    "::g",
  ])("%p is an address where node:net says so", (text) => {
    expect(parseAddress(text)?.family ?? 0).toBe(isIP(text));
  });
});

describe("isInBlock()", () => {
  test("decides as the block list of node:net", () => {
    const below = numbers(2);
    let inside = 0;
    for (let i = 0; i < 20_000; i++) {
      const [address, network] = [almostAddress(below), almostAddress(below)];
      const [family, other] = [isIP(address), isIP(network)];
      const found = parseAddress(address);
      if (found === undefined || other === 0) continue;
      const bits = below(other === 4 ? 33 : 129);
      const list = new BlockList();
      list.addSubnet(network, bits, other === 4 ? "ipv4" : "ipv6");
      // BlockList takes an IPv4 address for the IPv6 address that it is mapped to.
      const wanted = family === other && list.check(address, family === 4 ? "ipv4" : "ipv6");
      if (wanted) inside++;
      expect([address, network, bits, isInBlock(found, `${network}/${bits}`)]).toEqual([
        address,
        network,
        bits,
        wanted,
      ]);
    }
    expect(inside).toBeGreaterThan(100);
  });

  test.each(["10.0.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "name/8", "::/0"])(
    "nothing lies in %p",
    (block) => {
      expect(isInBlock({ family: 4, value: 0x0a000001n }, block)).toBe(false);
    },
  );
});
