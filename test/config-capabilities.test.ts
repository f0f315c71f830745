import { describe, expect, test } from "bun:test";
import { formatCapabilities, readCapabilities } from "../lib/config-capabilities.ts";
import type { Word } from "../lib/config-file.ts";
import { describeError } from "../lib/errors.ts";

const word = (value: string): Word => ({ value, where: "here", setting: "flags" });

describe("readCapabilities()", () => {
  // From the original: pkg/caps of ko v0.19.1.
  test.each<[readonly string[], string]>([
    [["net_bind_service"], "00000002 00040000 00000000 00000000 00000000"],
    [["net_raw=ep"], "01000002 00200000 00000000 00000000 00000000"],
    [["net_raw,net_admin=eip"], "01000002 00300000 00300000 00000000 00000000"],
    [["all"], "00000002 ffffffff 00000000 ff010000 00000000"],
    [["40"], "00000002 00000000 00000000 00010000 00000000"],
    [["63"], "00000002 00000000 00000000 00000080 00000000"],
    [["net_raw=i"], "00000002 00000000 00200000 00000000 00000000"],
    [["all=ep", "chown-ep"], "01000002 feffffff 00000000 ff010000 00000000"],
    [["net_raw=ep+i"], "01000002 00200000 00200000 00000000 00000000"],
    [["=ep"], "01000002 ffffffff 00000000 ff010000 00000000"],
    [["CAP_NET_RAW", "cap_net_admin"], "00000002 00300000 00000000 00000000 00000000"],
    [["net_raw+p-e"], "00000002 00200000 00000000 00000000 00000000"],
    [["net_raw=ep=p"], "00000002 00200000 00000000 00000000 00000000"],
    [["net_raw==p"], "00000002 00200000 00000000 00000000 00000000"],
    [["chown", "net_raw+e"], "01000002 01000000 00000000 00000000 00000000"],
    [["007"], "00000002 80000000 00000000 00000000 00000000"],
  ])("gives %j as the original does", (terms, want) => {
    const found = readCapabilities(terms.map(word));
    const hex = Buffer.from(found?.attribute ?? []).toString("hex");
    expect(hex.replace(/(.{8})(?=.)/g, "$1 ")).toBe(want);
    expect(found?.isEffective).toBe(want.startsWith("01"));
    const written = found === undefined ? "" : formatCapabilities(found);
    expect(readCapabilities(written.split(" ").map(word))).toEqual(found);
  });

  test.each([[["net_raw=e"]], [["net_raw="]], [["="]], [[]], [["net_raw-p"]], [["net_raw", "net_raw-p"]]])(
    "gives %j no attribute",
    (terms) => {
      expect(readCapabilities(terms.map(word))).toBeUndefined();
    },
  );

  test.each<[string, string]>([
    ["bogus", '"bogus": "bogus" is no capability'],
    ["net_rw", '"net_rw" is no capability, the nearest is "net_raw"'],
    ["64", "64 is no capability, wanted a name or 0 to 63"],
    ["cap_41", '"cap_41" is no capability'],
    ["", "a name is missing"],
    ["chown,net_raw", "a list of names needs an action\n  Type: chown,net_raw=p"],
    ["chown,", "a list of names needs an action"],
    ["chown,=p", "a name is missing"],
    ["net_raw=x", '"x" is no set of capabilities, wanted p (permitted)'],
    ["net_raw=P", '"P" is no set'],
    ["net_raw= p", '" " is no set'],
    ["net_raw=p,", '"," is no set'],
    ["-1", "a name is missing"],
    ["+p", "a name is missing"],
  ])("refuses %j", (term, message) => {
    let said = "";
    try {
      readCapabilities([word(term)]);
    } catch (error) {
      said = describeError(error);
    }
    expect(said).toContain(`Error: Cannot use flags at here: "${term}": `);
    expect(said).toContain(message);
  });
});
