"""Learning from trial and reward: at test time no demonstration, only a few own episodes."""
