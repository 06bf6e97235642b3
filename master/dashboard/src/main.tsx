// Puts the dashboard together: styles, keys, the live connection, the page.
import "./styles/base.css";
import "./styles/parts.css";
import "./styles/pages.css";
import { effect } from "@preact/signals";
import { render } from "preact";
import { App } from "./app";
import { followFleet, forgetFleet } from "./state/fleet";
import { connect, disconnect } from "./state/live";
import { signIn } from "./state/session";

followFleet();
effect(() => {
  if (signIn.value === "in") connect();
  if (signIn.value === "out") {
    disconnect();
    forgetFleet();
  }
});
const root = document.getElementById("app");
if (root) render(<App />, root);
