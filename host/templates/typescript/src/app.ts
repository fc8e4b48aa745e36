// The app component: the mutators, for the server. Functions of an app (`authenticate`, `authorize`, `event` …) go beside them.

import { schema } from "../settings.json";
import { plasmaApp } from "../syncline/app";
import { mutators } from "./mutators";

export const app = plasmaApp({ schema, mutators });
